"""One request for text, whichever API it came through, and the pieces of its answer.

All four chat APIs are translated to and from these, so that one conversation gives equal results through each
of them: there is one path to the model, and no API is a wrapper around another one's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from llm_engine.chat.documents import Document
from llm_engine.chat.messages import Message, Tool
from llm_engine.runner.messages import TokenLogprob, Usage

JsonFormat = Literal["json"] | dict[str, Any]


@dataclass(frozen=True)
class ToolChoice:
    """Whether a tool may, must not, or must be called; `name` where it must be a certain one."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


@dataclass(frozen=True)
class Plain:
    """A prompt that is not a conversation: Ollama's generate and OpenAI's completions."""

    text: str = ""
    tokens: Sequence[int] | None = None
    """Token ids instead of text; they are used as they are."""
    raw: bool = False
    system: str = ""
    template: str = ""
    suffix: str = ""
    context: Sequence[int] = ()
    images: Sequence[bytes] = ()


@dataclass(frozen=True)
class Turn:
    """What a client asks for."""

    model: str
    messages: Sequence[Message] = ()
    plain: Plain | None = None
    tools: Sequence[Tool] = ()
    documents: Sequence[Document] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    think: bool | str | None = None
    relax_thinking: bool = False
    """A wish to think that the model cannot fulfil is dropped instead of refused."""
    format: JsonFormat | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options that an API's own fields set; they win over everything."""
    fallbacks: Mapping[str, Any] = field(default_factory=dict)
    """Options an API has other defaults for; the model's own parameters win over them."""
    keep_alive: float | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: bool = False
    """Whether the tokens of the prompt come with log-probabilities, too: as many as those of the answer."""
    truncate: bool = True
    shift: bool = True
    want_context: bool = False
    count_prompt: bool = False

    @property
    def stops(self) -> Sequence[str]:
        """The texts at which the client itself wants the answer to end."""
        given: Sequence[str] = self.overrides.get("stop") or ()
        return given


@dataclass(frozen=True)
class Begun:
    """The model is there and the prompt is built; nothing was generated yet."""

    prompt_tokens: int | None = None
    truncated: bool = False
    load_seconds: float = 0.0


@dataclass(frozen=True)
class CallMade:
    """A complete tool call."""

    id: str
    name: str
    arguments: dict[str, Any]
    index: int

    @property
    def arguments_text(self) -> str:
        """The arguments as JSON, in the order in which the model wrote them, and with all digits of its whole
        numbers, which a faster writer would refuse."""
        return json.dumps(self.arguments, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @property
    def arguments_json(self) -> orjson.Fragment:
        """The same as a part of a larger document."""
        return orjson.Fragment(self.arguments_text)


@dataclass(frozen=True)
class Delta:
    """The next piece of one choice."""

    index: int
    content: str = ""
    thinking: str = ""
    calls: Sequence[CallMade] = ()
    logprobs: Sequence[TokenLogprob] = ()
    echo: Sequence[TokenLogprob] = ()
    """The next tokens of the prompt, where they were asked for; the very first has no probability."""


@dataclass(frozen=True)
class End:
    """One choice is complete."""

    index: int
    reason: Literal["stop", "length"]
    stop_string: str | None
    called: bool
    usage: Usage
    thinking_tokens: int = 0
    context: Sequence[int] = ()


Piece = Begun | Delta | End


@dataclass
class Answer:
    """All pieces of one choice put together, for those who do not stream."""

    content: str = ""
    thinking: str = ""
    calls: list[CallMade] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    echo: list[TokenLogprob] = field(default_factory=list)
    end: End | None = None

    def add(self, piece: Delta | End) -> None:
        if isinstance(piece, End):
            self.end = piece
            return
        self.content += piece.content
        self.thinking += piece.thinking
        self.calls.extend(piece.calls)
        self.logprobs.extend(piece.logprobs)
        self.echo.extend(piece.echo)


def total_usage(ends: Sequence[End]) -> Usage:
    """The prompt is shared by all choices and counted once."""
    first = ends[0].usage
    return Usage(
        prompt_tokens=first.prompt_tokens,
        cached_tokens=first.cached_tokens,
        completion_tokens=sum(end.usage.completion_tokens for end in ends),
        queue_seconds=first.queue_seconds,
        prompt_seconds=first.prompt_seconds,
        generate_seconds=max(end.usage.generate_seconds for end in ends),
    )


def added_usage(usages: Sequence[Usage]) -> Usage:
    """Of several prompts that one request holds."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )

"""The bodies of Ollama's routes, in and out. Field names, defaults and Go type names are part of the
contract."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from llm_engine.api import base64text
from llm_engine.api.goparse import GoDecodeError, refuse_infinite
from llm_engine.durations import FOREVER, InvalidDuration, parse_duration


@dataclass(frozen=True)
class KeepAlive:
    """Seconds: a number, or a Go duration; negative means for ever."""

    seconds: float

    @classmethod
    def from_json(cls, value: Any) -> KeepAlive:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            kind = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}[type(value)]
            raise GoDecodeError(f"Unsupported type: '{kind}'")
        refuse_infinite(value)
        if isinstance(value, str):
            try:
                value = parse_duration(value)
            except InvalidDuration as error:
                raise GoDecodeError(str(error)) from None
        return cls(FOREVER if value < 0 else float(value))


THINK_LEVELS = ("high", "medium", "low", "max")


@dataclass(frozen=True)
class Think:
    """`think`: on, off, or how hard."""

    value: bool | str

    @classmethod
    def from_json(cls, value: Any) -> Think:
        choices = '"high", "medium", "low", "max", true, or false'
        if isinstance(value, bool):
            return cls(value)
        if isinstance(value, str):
            if value not in THINK_LEVELS:
                raise GoDecodeError(f'invalid think value: "{value}" (must be {choices})')
            return cls(value)
        raise GoDecodeError(f"think must be a boolean or string ({choices})")


@dataclass(frozen=True)
class ImageData:
    """A picture as base64, as Go's []byte reads it."""

    data: bytes = b""

    @classmethod
    def from_json(cls, value: Any) -> ImageData:
        if not isinstance(value, str):
            raise GoDecodeError("json: cannot unmarshal value into Go value of type []uint8")
        text = base64text.without_space(value)
        try:
            return cls(base64text.decode(text))
        except base64text.NotBase64:
            raise GoDecodeError(f"illegal base64 data at input byte {_first_bad(text)}") from None


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


def _first_bad(text: str) -> int:
    for at in range(0, len(text), base64text.STEP):
        if found := _NOT_BASE64.search(text, at, at + base64text.STEP):
            return found.start()
    return len(text) // 4 * 4


@dataclass(frozen=True)
class Role:
    """Lower-cased on the way in, as Ollama does."""

    name: str

    @classmethod
    def from_json(cls, value: Any) -> str:
        if not isinstance(value, str):
            raise GoDecodeError(
                "json: cannot unmarshal value into Go struct field Message.role of type string"
            )
        return value.lower()


@dataclass(frozen=True)
class ToolCallFunction:
    index: int = 0
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCall:
    id: str = ""
    function: ToolCallFunction = field(default_factory=ToolCallFunction)


@dataclass(frozen=True)
class Message:
    role: Role = ""  # type: ignore[assignment]  # read by Role, kept as text
    content: str = ""
    thinking: str = ""
    images: list[ImageData] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True)
class ToolFunction:
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Tool:
    type: str = ""
    items: Any = None
    function: ToolFunction = field(default_factory=ToolFunction)


@dataclass(frozen=True)
class GenerateRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = field(default_factory=list)
    stream: bool | None = None
    raw: bool = False
    format: Any = None
    keep_alive: KeepAlive | None = None
    images: list[ImageData] = field(default_factory=list)
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = field(default=False, metadata={"json": "_debug_render_only"})


@dataclass(frozen=True)
class ChatRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    messages: list[Message] = field(default_factory=list)
    stream: bool | None = None
    format: Any = None
    keep_alive: KeepAlive | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_choice: Any = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = field(default=False, metadata={"json": "_debug_render_only"})


@dataclass(frozen=True)
class EmbedRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    input: Any = None
    truncate: bool | None = None
    dimensions: int = 0
    keep_alive: KeepAlive | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class EmbeddingRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    prompt: str = ""
    keep_alive: KeepAlive | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class TokenizeRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    content: str = ""
    add_special: bool = False
    parse_special: bool = True
    keep_alive: KeepAlive | None = None


@dataclass(frozen=True)
class DetokenizeRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    tokens: list[int] = field(default_factory=list)
    keep_alive: KeepAlive | None = None


class Metrics(TypedDict, total=False):
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


class DebugInfo(TypedDict):
    rendered_template: str
    image_count: NotRequired[int]


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    top_logprobs: NotRequired[list[TopLogprob]]


class CallFunctionOut(TypedDict):
    index: int
    name: str
    arguments: dict[str, Any]


class CallOut(TypedDict):
    id: str
    function: CallFunctionOut


class GenerateReply(Metrics):
    model: str
    created_at: str
    response: str
    done: bool
    thinking: NotRequired[str]
    done_reason: NotRequired[str]
    context: NotRequired[list[int]]
    tool_calls: NotRequired[list[CallOut]]
    logprobs: NotRequired[list[Logprob]]
    _debug_info: NotRequired[DebugInfo]


class MessageOut(TypedDict):
    role: str
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[CallOut]]


class ChatReply(Metrics):
    model: str
    created_at: str
    message: MessageOut
    done: bool
    done_reason: NotRequired[str]
    logprobs: NotRequired[list[Logprob]]
    _debug_info: NotRequired[DebugInfo]


class EmbedReply(TypedDict):
    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]


class EmbeddingReply(TypedDict):
    embedding: list[float]


class ErrorReply(TypedDict):
    error: str

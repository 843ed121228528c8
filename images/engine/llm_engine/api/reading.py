"""Reads what the model writes: content, thinking and tool calls, as they become certain."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence

from llm_engine.api import sound
from llm_engine.api.forcing import Forced
from llm_engine.api.turn import CallMade, Delta, Turn
from llm_engine.chat.parsing.events import Content, Thinking, ToolCall
from llm_engine.runner.messages import TokenLogprob, Tokens

_ALPHABET = string.ascii_lowercase + string.digits


def new_call_id() -> str:
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


class Reader:
    """One choice's text, piece by piece. `called` tells whether it made a tool call."""

    def __init__(self, forced: Forced, turn: Turn) -> None:
        self.parser = forced.parser()
        self.single = not turn.parallel_tool_calls
        self.called = 0
        self.thinking_tokens = 0
        self.ids: list[int] = []

    def feed(self, tokens: Tokens) -> Delta | None:
        self.ids.extend(tokens.ids)
        delta = self._delta(self.parser.feed(tokens.text), tokens.logprobs)
        if delta is not None and delta.thinking:
            self.thinking_tokens += max(len(tokens.logprobs), len(tokens.ids), 1)
        return delta

    def finish(self, *, cut: bool) -> Delta | None:
        """`cut`: the model did not end of itself, so that a call which it had begun is none."""
        return self._delta(self.parser.finish(cut=cut), ())

    def _delta(
        self, events: Sequence[Content | Thinking | ToolCall], logprobs: Sequence[TokenLogprob]
    ) -> Delta | None:
        content, thinking = "", ""
        calls: list[CallMade] = []
        for event in events:
            if isinstance(event, Thinking):
                thinking += event.text
            elif isinstance(event, Content):
                content += event.text
            elif not (self.single and self.called):
                arguments = sound.value(dict(event.arguments))
                calls.append(CallMade(new_call_id(), sound.text(event.name), arguments, self.called))
                self.called += 1
        if not (content or thinking or calls or logprobs):
            return None
        return Delta(0, content, thinking, calls, logprobs)

"""Reads what the model writes: content, thinking and tool calls, as they become certain."""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Callable, Sequence

from llm_engine.api import sound
from llm_engine.api.forcing import Forced
from llm_engine.api.turn import CallMade, Delta, Turn
from llm_engine.chat.parsing.events import Content, Event, Thinking
from llm_engine.runner.messages import TokenLogprob, Tokens

LARGE = 16_000
"""A call of more characters is read in a thread: the end of a very long one takes a tenth of a second."""
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

    async def feed(self, tokens: Tokens) -> Delta | None:
        self.ids.extend(tokens.ids)
        events = await self._events(lambda: self.parser.feed(tokens.text), len(tokens.text))
        delta = self._delta(events, tokens.logprobs)
        if delta is not None and delta.thinking:
            self.thinking_tokens += max(len(tokens.logprobs), len(tokens.ids), 1)
        return delta

    async def finish(self, *, cut: bool) -> Delta | None:
        """`cut`: the model did not end of itself, so that a call which it had begun is none."""
        return self._delta(await self._events(lambda: self.parser.finish(cut=cut)), ())

    async def _events(self, read: Callable[[], list[Event]], more: int = 0) -> list[Event]:
        return read() if self.parser.held + more <= LARGE else await asyncio.to_thread(read)

    def _delta(self, events: Sequence[Event], logprobs: Sequence[TokenLogprob]) -> Delta | None:
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

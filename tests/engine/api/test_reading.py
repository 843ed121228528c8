"""What a model writes is read on the event loop while it is little, and in a thread where it is much."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from llm_engine.api.forcing import Forced
from llm_engine.api.reading import LARGE, Reader
from llm_engine.api.turn import Turn
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import parser_for
from llm_engine.chat.parsing.events import Event, StreamParser
from llm_engine.runner.messages import Tokens

from tests.engine.chat.test_parsing_families import BY_NAME

TEXTS = {
    "hermes": ('<tool_call>{"name": "f", "arguments": {"a": "', '"}}</tool_call>'),
    "llama3": ('{"name": "f", "parameters": {"a": "', '"}}'),
    "mistral-args": ('[TOOL_CALLS]f[ARGS]{"a": "', '"}'),
    "harmony": ('<|channel|>commentary to=functions.f <|message|>{"a": "', '"}<|call|>'),
    "lfm2": ('<|tool_call_start|>[f(a="', '")]<|tool_call_end|>'),
}


class Watched:
    """A real parser, and the threads in which it was asked."""

    def __init__(self, inner: StreamParser) -> None:
        self.inner = inner
        self.threads: set[int] = set()

    @property
    def held(self) -> int:
        return self.inner.held

    def feed(self, text: str) -> list[Event]:
        self.threads.add(threading.get_ident())
        return self.inner.feed(text)

    def finish(self, *, cut: bool = False) -> list[Event]:
        self.threads.add(threading.get_ident())
        return self.inner.finish(cut=cut)


async def read(name: str, pieces: Sequence[str]) -> tuple[list[dict[str, object]], set[int]]:
    parser = Watched(parser_for(BY_NAME[name], [Tool("f")], thinks=False))
    reader = Reader(Forced(lambda: parser), Turn("m"))
    calls = []
    for piece in pieces:
        delta = await reader.feed(Tokens(0, piece))
        calls += [call.arguments for call in delta.calls] if delta else []
    delta = await reader.finish(cut=False)
    calls += [call.arguments for call in delta.calls] if delta else []
    return calls, parser.threads


@pytest.mark.parametrize("name", TEXTS)
async def test_a_long_call_is_read_beside_the_loop(name: str) -> None:
    before, after = TEXTS[name]
    here = threading.get_ident()
    assert await read(name, [before, "x", after]) == ([{"a": "x"}], {here})
    calls, threads = await read(name, [before, *["x" * 1000] * (LARGE // 1000), after])
    assert calls == [{"a": "x" * LARGE}] and threads - {here}
    calls, threads = await read(name, [before + "x" * LARGE + after])
    assert calls == [{"a": "x" * LARGE}] and threads - {here}


@pytest.mark.parametrize("name", TEXTS)
async def test_a_long_text_is_not(name: str) -> None:
    assert await read(name, ["word " * 100] * (LARGE // 250)) == ([], {threading.get_ident()})

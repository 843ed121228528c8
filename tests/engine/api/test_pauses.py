"""Nothing that is still being written looks dead to a proxy: comments and pings come into the pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from llm_engine.api import anthropic, pauses
from llm_engine.api.endpoint import NDJSON, SSE, Call, Endpoint, Exchange, Stream
from llm_engine.api.errors import Dialect
from llm_engine.api.pauses import COMMENT
from llm_engine.api.turn import Begun, Delta, Piece
from starlette.datastructures import Headers

DEADLINE = 60.0
FIRST, LAST = b"data: 1\n\n", b"data: 2\n\n"


def run(dialect: Dialect, media_type: str, until: Any) -> list[bytes]:
    """What is written of an answer whose second chunk comes when `until` says so of what there is."""
    written: list[bytes] = []

    async def exchange() -> None:
        changed = asyncio.Event()

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield FIRST
            while not until(written):
                changed.clear()
                await changed.wait()
            yield LAST

        async def handler(call: Call) -> Stream:
            return Stream(chunks(), media_type)

        async def send(message: Any) -> None:
            written.append(message.get("body", b""))
            changed.set()

        async def receive() -> Any:
            await asyncio.Event().wait()

        scope: Any = {"type": "http", "method": "POST", "path": "/x"}
        call = Call(Any, dialect, scope, Headers(), {}, "req_1", "local", receive, 0)  # type: ignore[arg-type]
        route = Endpoint(("POST",), "/x", handler, dialect)
        await asyncio.wait_for(Exchange(route, call, send).run(), DEADLINE)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(exchange())
    return [chunk for chunk in written if chunk]


def test_a_comment_comes_into_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "QUIET_SECONDS", 0.01)
    written = run(Dialect.OPENAI, SSE, lambda written: written.count(COMMENT) >= 2)
    assert (written[0], written[-1]) == (FIRST, LAST)
    assert set(written[1:-1]) == {COMMENT}
    assert COMMENT.startswith(b":") and COMMENT.endswith(b"\n\n"), "by the standard it is no event"


@pytest.mark.parametrize(
    ("dialect", "media_type"), [(Dialect.ANTHROPIC, SSE), (Dialect.OLLAMA, NDJSON), (Dialect.OPENAI, SSE)]
)
def test_no_comment_where_it_would_be_wrong_or_no_pause(
    monkeypatch: pytest.MonkeyPatch, dialect: Dialect, media_type: str
) -> None:
    if dialect is not Dialect.OPENAI:
        monkeypatch.setattr(pauses, "QUIET_SECONDS", 0.0)
    assert run(dialect, media_type, lambda written: True) == [FIRST, LAST]


async def test_a_ping_comes_into_a_pause_once_the_message_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic, "PING_SECONDS", 0.01)
    pinged = asyncio.Event()

    async def pieces() -> AsyncGenerator[Piece, None]:
        yield Begun()
        await pinged.wait()
        yield Delta(0, "x")

    found: list[Piece | None] = []
    async with asyncio.timeout(DEADLINE):
        async for piece in anthropic._with_pings(pieces()):
            found.append(piece)
            if found.count(None) == 2:
                pinged.set()
    assert found[0] == Begun() and found[-1] == Delta(0, "x")
    assert len(found) >= 4 and set(found[1:-1]) == {None}

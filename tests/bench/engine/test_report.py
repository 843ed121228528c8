"""A benchmark that could not measure must not look like one that did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.bench.engine import client
from tests.bench.engine.bench_engine import failure_told
from tests.bench.engine.report import SIDES, Results, report
from tests.bench.engine.scenarios import SCENARIOS

COSTS = ("load", "memory", "idle")


def whole(rounds: int) -> Results:
    """Everything measured in every round, and reached."""
    found: Results = {name: {side: [1.0] * rounds for side in SIDES} for name in COSTS}
    for scenario in SCENARIOS:
        ours = 3.0 if scenario.higher else 0.1
        found[scenario.name] = {"engine": [ours] * rounds, "llama-server": [1.0] * rounds}
    return found


def test_a_whole_one_is_good() -> None:
    assert report(whole(3), SCENARIOS, 3)


@pytest.mark.parametrize("name", [*(scenario.name for scenario in SCENARIOS), *COSTS])
@pytest.mark.parametrize("side", SIDES)
def test_a_missing_figure_is_not_good(name: str, side: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = whole(3)
    results[name][side].pop()
    assert not report(results, SCENARIOS, 3)
    assert f"{side} in 1 of 3 rounds" in capsys.readouterr().out
    del results[name]
    assert not report(results, SCENARIOS, 3)
    assert "not measured" in capsys.readouterr().out


def test_a_missed_ratio_is_not_good() -> None:
    results = whole(1)
    results["prefix"]["engine"] = [1.9]
    assert not report(results, SCENARIOS, 1)


def test_a_run_that_only_embeds_has_no_figures_of_a_chat() -> None:
    embed = [scenario for scenario in SCENARIOS if scenario.embedding]
    results = whole(1)
    for name in COSTS:
        del results[name]
    assert report(results, embed, 1)


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    """Answers whatever it is asked so, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
PIECE = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'


async def test_a_stream_has_to_end() -> None:
    async with server(HEAD + PIECE + b"data: [DONE]\n\n") as port:
        assert (await client.chat(port, [], 1)).text == "x"
    async with server(HEAD + PIECE) as port:
        with pytest.raises(client.BadReply, match="broke off after 1"):
            await client.chat(port, [], 1)


async def test_a_body_has_to_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with server(head + b"2\r\nab\r\n0\r\n\r\n") as port:
        assert await client.fetch(port, "GET", "/") == (200, b"ab")
    async with server(head + b"2\r\nab\r\n") as port:
        with pytest.raises(client.BadReply, match="broke off"):
            await client.fetch(port, "GET", "/")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200"])
async def test_a_dead_server_fails_its_scenario_alone(
    answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server(answer) as port:
        with failure_told("engine", "single"):
            await client.chat(port, [], 1)
    with failure_told("engine", "conc8"):  # nobody listens any more
        await client.chat(port, [], 1)
    told = capsys.readouterr().err
    assert "single" in told and "conc8" in told

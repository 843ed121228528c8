"""kill -9 of the runner in what it does beside reading and writing: each phase is reached for certain, as the
runner stands still in it, and whoever has asked for anything is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import PoolingType
from llm_engine.runner.messages import GenerateRequest, Grammar, Media, RerankRequest
from llm_engine.scheduler.process import RunnerError, RunnerProcess

from tests.engine.runner.conftest import RequestFailed, Runners, ask
from tests.engine.runner.test_extras import greedy, png
from tests.support import broken_runner, extra_gguf, random_gguf

Ask = Callable[[RunnerProcess], Awaitable[Any]]
LONG = "w" * 300
PHASES: dict[str, tuple[str, Ask]] = {
    "encoding a picture": (
        "media.Projector.read",
        lambda runner: ask(runner, greedy(["see ", Media(png(9)), "?"])),
    ),
    "reading a prompt": ("loop.Loop._read", lambda runner: ask(runner, greedy("a prompt"))),
    "tokenising a long text": ("intake.read_prompt", lambda runner: ask(runner, greedy("x" * 40_000))),
    "reading a grammar": (
        "intake.constraint_factory",
        lambda runner: ask(runner, GenerateRequest("x", grammar=Grammar(json_schema={"type": "object"}))),
    ),
    "parking": ("cache.Cache.lift", lambda runner: ask(runner, greedy(LONG, 1))),
    "restoring": ("cache.Cache.lay", lambda runner: ask(runner, greedy(LONG, 1))),
    "stopping": ("service.Writer.close", lambda runner: runner.stop(grace=60)),
}


async def standing(runner: RunnerProcess) -> None:
    async with asyncio.timeout(60):
        while broken_runner.STANDS not in runner.last_lines:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing else tells of a line that has come


@pytest.mark.parametrize("phase", PHASES)
async def test_killed_while(
    start: Runners, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    place, asks = PHASES[phase]
    flag = tmp_path / "stand"
    with monkeypatch.context() as patched:
        patched.setattr(
            sys, "executable", broken_runner.program(tmp_path / "runner", place, stands_when=flag)
        )
        mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf")
        # What is idle is parked at once, so that it has to be brought back.
        runner = await start(random_model, mmproj=str(mmproj), num_ctx=4096, idle_cells=1)
    writing = asyncio.create_task(ask(runner, greedy("talk", 4000)))
    async with asyncio.timeout(60):
        while not (await runner.stats()).generated_tokens:
            pass
    if phase == "restoring":
        await asks(runner)
        async with asyncio.timeout(60):
            while not (await runner.stats()).parked_bytes:
                pass
    flag.touch()
    asking = asyncio.ensure_future(asks(runner))
    await standing(runner)
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        with pytest.raises(RequestFailed, match="SIGKILL") as failed:
            await writing
        assert failed.value.kind == "crashed"
        exit_ = await runner.exited
        assert exit_.expected is (phase == "stopping")
        if phase == "stopping":
            assert await asking == exit_
        elif phase != "parking":  # what is parked has been answered
            with pytest.raises(RequestFailed, match="SIGKILL") as failed:
                await asking
            assert failed.value.kind == "crashed"
        else:
            await asking


async def test_killed_while_reranking(
    start: Runners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_gguf.build(tmp_path / "rank.gguf", pooling=PoolingType.RANK)
    flag = tmp_path / "stand"
    program = broken_runner.program(tmp_path / "runner", "embed.Embedder._compute", stands_when=flag)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        runner = await start(model)
    flag.touch()
    asking = [asyncio.ensure_future(runner.rerank(RerankRequest("q", ["d"]))) for _ in range(2)]
    await standing(runner)
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        for failed in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(failed, RunnerError) and failed.kind == "crashed" and "SIGKILL" in failed.text

"""One crash is followed by a load, a row of them by refusals that grow longer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from llm_engine.api.failures import scheduler_error
from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler import Scheduler
from llm_engine.scheduler.crashes import FORGOTTEN, LONGEST_DELAY, WELL, Crashes
from llm_engine.scheduler.errors import CrashLoop, LoadCrashed
from llm_engine.scheduler.memory import Shape
from llm_engine.scheduler.plan import Defaults, ModelFiles
from llm_engine.scheduler.process import RunnerProcess
from llm_engine.scheduler.scheduler import start_runner

from tests.engine.scheduler.conftest import until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_delay_grows_and_has_a_bound() -> None:
    crashes = Crashes(Clock())
    delays = [crashes.note("a", "killed") for _ in range(10)]
    assert delays[:5] == [0, 1, 2, 4, 8] and delays == sorted(delays) and delays[-1] == LONGEST_DELAY


def test_it_is_refused_until_the_delay_is_over() -> None:
    clock = Clock()
    crashes = Crashes(clock)
    crashes.note("a", "first")
    crashes.check("a")
    for _ in range(3):
        crashes.note("a", "killed by SIGABRT")
    with pytest.raises(
        CrashLoop, match="crashed 4 times in a row, the last time: killed by SIGABRT"
    ) as caught:
        crashes.check("a")
    assert caught.value.retry_after == 4
    crashes.check("b")
    clock.now += 3.5
    with pytest.raises(CrashLoop, match="another 1 s"):
        crashes.check("a")
    clock.now += 0.5
    crashes.check("a")


def test_a_good_life_begins_the_row_anew() -> None:
    clock = Clock()
    crashes = Crashes(clock)
    crashes.note("a", "killed")
    assert crashes.note("a", "killed", lived=WELL - 1)
    assert not crashes.note("a", "killed", lived=WELL)
    assert crashes.note("a", "killed")
    clock.now += FORGOTTEN + 1
    assert not crashes.note("a", "killed")


class Machine:
    """A scheduler whose next `dying` runners are killed while they load."""

    def __init__(self, model: Path) -> None:
        self.files = ModelFiles(name="a", path=str(model), shape=Shape(n_ctx_train=4096))
        self.dying = 0
        self.starts = 0
        self.scheduler = Scheduler(Defaults(context_length=256, num_parallel=1), start=self.start)

    async def start(self, spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
        self.starts += 1
        others = set(children())
        load = asyncio.ensure_future(start_runner(spec, on_progress))
        if self.dying:
            self.dying -= 1
            await until(lambda: set(children()) - others or load.done())
            for child in set(children()) - others:
                child.kill()
        return await load

    async def kill(self) -> None:
        """A load, and the end of it."""
        async with self.scheduler.use(self.files) as lease:
            os.kill(lease.runner.pid, signal.SIGKILL)
            await lease.runner.exited


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@pytest.fixture
async def machine(chat_gguf: Path) -> AsyncIterator[Machine]:
    machine = Machine(chat_gguf)
    yield machine
    await machine.scheduler.close(0)


async def test_a_runner_that_dies_twice_in_a_row_is_not_loaded_again_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_engine.scheduler.crashes.FIRST_DELAY", 1000.0)
    monkeypatch.setattr("llm_engine.scheduler.crashes.LONGEST_DELAY", 1000.0)
    await machine.kill()
    await machine.kill()
    for _ in range(3):
        with pytest.raises(CrashLoop, match=r"crashed 2 times in a row, .*SIGKILL") as caught:
            await machine.kill()
        assert 900 < caught.value.retry_after <= 1000
    assert machine.starts == 2


async def test_a_row_of_crashes_ends_with_its_delay(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_engine.scheduler.crashes.FIRST_DELAY", 0.0)
    for _ in range(3):
        await machine.kill()
    assert machine.starts == 3


async def test_a_model_that_kills_its_runner_while_it_loads(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_engine.scheduler.crashes.FIRST_DELAY", 30.0)
    machine.dying = 2
    for _ in range(2):
        with pytest.raises(LoadCrashed, match="SIGKILL"):
            await machine.kill()
    with pytest.raises(CrashLoop, match="SIGKILL"):
        await machine.kill()
    assert machine.starts == 2


async def test_those_who_wait_when_it_dies_again_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_engine.scheduler.crashes.FIRST_DELAY", 30.0)
    await machine.kill()
    async with machine.scheduler.use(machine.files) as lease:
        waiting = [asyncio.create_task(machine.kill()) for _ in range(3)]
        await until(lambda: machine.scheduler.waiting == 3)
        os.kill(lease.runner.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [CrashLoop] * 3


def test_every_api_says_when_to_come_back() -> None:
    error = scheduler_error(CrashLoop(3, "killed by SIGABRT", 4))
    assert error.status == 503 and error.headers["Retry-After"] == "4" and "SIGABRT" in error.message

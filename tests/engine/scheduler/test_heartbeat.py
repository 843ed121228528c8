"""A runner that no longer works for those who wait is ended; one that takes its time is not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from llm_engine.runner import protocol
from llm_engine.runner.messages import Event, Failed, GenerateRequest, LoadSpec, Tokens
from llm_engine.scheduler.heartbeat import BEAT_SECONDS, SILENT_BEATS, STUCK_SECONDS, Heartbeat
from llm_engine.scheduler.process import RunnerError, RunnerProcess

from tests.engine.scheduler.conftest import until

STEPS = int(STUCK_SECONDS / BEAT_SECONDS)


class Clock:
    """A process's processor time."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def beats(heart: Heartbeat, count: int, between: Callable[[], None]) -> str | None:
    for _ in range(count):
        between()
        if why := heart.beat():
            return why
    return None


def test_silence_is_not_waited_for() -> None:
    heart = Heartbeat(Clock(), on_gpu=False)
    heart.begin()
    assert beats(heart, SILENT_BEATS, lambda: None) is None
    assert heart.beat() == "it did not answer for 30 s"


def test_who_is_silent_over_a_text_gets_minutes() -> None:
    clock = Clock()
    heart = Heartbeat(clock, on_gpu=False)
    heart.begin()

    def reads() -> None:
        clock.seconds += BEAT_SECONDS

    assert beats(heart, STEPS, reads) is None
    assert beats(heart, 1, reads) == "it did not answer for 300 s"


def test_a_server_that_was_stopped_itself_does_not_blame_the_runner() -> None:
    heart = Heartbeat(Clock(), on_gpu=False)
    heart.begin()
    for _ in range(3):
        assert beats(heart, SILENT_BEATS - 1, lambda: None) is None
        heart.heard()


def test_a_long_step_on_a_processor_is_waited_for() -> None:
    clock = Clock()
    heart = Heartbeat(clock, on_gpu=False)
    heart.begin()

    def computes() -> None:
        clock.seconds += BEAT_SECONDS
        heart.felt(1)

    assert beats(heart, 5 * STEPS, computes) is None


def test_a_runner_that_answers_but_computes_nothing_is_ended() -> None:
    heart = Heartbeat(Clock(), on_gpu=False)
    heart.begin()
    assert beats(heart, STEPS - 1, lambda: heart.felt(1)) is None
    assert beats(heart, 1, lambda: heart.felt(1)) == "it computed nothing for 300 s"


def test_no_step_on_a_gpu_takes_minutes() -> None:
    """A GPU that hangs keeps its process spinning."""
    clock = Clock()
    heart = Heartbeat(clock, on_gpu=True)
    heart.begin()

    def spins() -> None:
        clock.seconds += BEAT_SECONDS
        heart.felt(1)

    assert beats(heart, STEPS + 2, spins) == "it computed nothing for 300 s"


def test_steps_that_end_keep_it_alive() -> None:
    heart = Heartbeat(Clock(), on_gpu=True)
    heart.begin()
    steps = iter(range(10 * STEPS))
    assert beats(heart, 3 * STEPS, lambda: heart.felt(next(steps))) is None


@pytest.fixture
async def runner(endless_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("llm_engine.scheduler.process.BEAT_SECONDS", 0.3)
    runner = await RunnerProcess.start(LoadSpec(str(endless_gguf), num_ctx=256))
    yield runner
    await runner.stop(0.1)


async def freeze(pid: int) -> None:
    """The signal stops one thread, which has the others stopped."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: set(states(pid)) == {"T"})


def states(pid: int) -> list[str]:
    return [
        (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


async def rest(events: Any) -> list[Event]:
    async with asyncio.timeout(60):
        return [event async for event in events]


async def test_a_frozen_runner_is_ended(runner: RunnerProcess) -> None:
    async with aclosing(runner.generate(GenerateRequest("go", max_tokens=10**6))) as events:
        async for event in events:
            if isinstance(event, Tokens):
                break
        await freeze(runner.pid)
        last = (await rest(events))[-1]
    assert isinstance(last, Failed) and last.kind == "crashed"
    assert last.text == "the model runner has terminated: ended because it did not answer for 30 s"
    assert not runner.alive


async def test_one_that_was_frozen_while_idle_is_ended_when_somebody_asks(runner: RunnerProcess) -> None:
    await freeze(runner.pid)
    async with asyncio.timeout(30):
        with pytest.raises(RunnerError, match="did not answer"):
            await runner.tokenize("x")


async def test_one_that_works_is_left_alone(runner: RunnerProcess) -> None:
    request = GenerateRequest("go", max_tokens=400)
    async with aclosing(runner.generate(request)) as events:
        assert not [event for event in await rest(events) if isinstance(event, Failed)]
    assert runner.alive


async def test_nothing_is_asked_of_an_idle_runner(
    runner: RunnerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runner.tokenize("x")
    sent: list[str] = []
    monkeypatch.setattr(runner, "_send", lambda kind, *_: sent.append(kind))
    await asyncio.sleep(0.7)
    assert sent == []


async def test_what_cannot_be_read_ends_the_runner(
    runner: RunnerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(item: object) -> Event:
        raise TypeError("Tokens takes no such thing")

    monkeypatch.setattr(protocol, "event", broken)
    async with aclosing(runner.generate(GenerateRequest("go", max_tokens=10**6))) as events:
        last = (await rest(events))[-1]
    assert isinstance(last, Failed) and "it broke the protocol: TypeError" in last.text
    assert not runner.alive

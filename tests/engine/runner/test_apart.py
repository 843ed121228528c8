"""Prompts that are read in a context of their own, while streams go on with the other half of the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.runner.apart import Apart
from llm_engine.runner.branch import Branch, State
from llm_engine.runner.messages import Done, GenerateRequest, SamplingParams

from tests.engine.runner.inprocess import InProcess, leaks

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)
PROMPT = "".join(f"{n} steps, " for n in range(60))


class Gate:
    """Holds what is computed apart until it is told to go on; `held` is set when something waits there."""

    def __init__(self, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self._open, self._pieces = threading.Event(), threading.Event(), apart._pieces
        monkeypatch.setattr(apart, "_pieces", self._wait)

    def _wait(self) -> tuple[int, int]:
        self.held.set()
        assert self._open.wait(30)
        return self._pieces()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def inside(random_model: Path) -> Iterator[InProcess]:
    made = InProcess(random_model, num_ctx=1200, cells=4096, num_batch=512, threads=2, lookup=0)
    apart(made).least, apart(made).beside, apart(made).piece = 8, 0, 64
    yield made
    assert not leaks(made)


def apart(inside: InProcess) -> Apart:
    assert inside.loop.apart is not None
    return inside.loop.apart


def branch(inside: InProcess, number: int) -> Branch:
    (found,) = (b for b in (*inside.loop.running, *inside.loop.queue.waiting) if b.request_id == number)
    return found


def stream(inside: InProcess, number: int = 1, count: int = 1000) -> Branch:
    """One that writes for as long as it is not cancelled."""
    inside.submit(number, GenerateRequest("run", max_tokens=count, sampling=ENDLESS))
    inside.machine.turn()
    assert branch(inside, number).state is State.WRITING
    return branch(inside, number)


def until(inside: InProcess, true: Callable[[], bool]) -> None:
    for _ in range(5000):
        if true():
            return
        inside.machine.turn()
    raise AssertionError("it never comes about")


def alone(random_model: Path, prompt: str, count: int) -> str:
    other = InProcess(random_model, num_ctx=1200, cells=4096, num_batch=512, lookup=0)
    said = other.say([prompt], count)[0]
    assert isinstance(said, str)
    return said


def test_streams_go_on_while_a_prompt_is_read(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, gate = stream(inside), Gate(apart(inside), monkeypatch)
    inside.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    inside.submit(3, GenerateRequest("z" * 200, max_tokens=20, sampling=ENDLESS))
    inside.submit(4, GenerateRequest("w", max_tokens=20, sampling=ENDLESS))
    until(inside, gate.held.is_set)
    said = running.generated
    for _ in range(30):
        inside.machine.turn()
    assert running.generated == said + 30, "the stream gets a token in every turn"
    first, second = sorted((branch(inside, n) for n in (2, 3)), key=lambda b: b.apart, reverse=True)
    assert (first.computed, second.computed, second.apart) == (1, 1, -1), "one at a time; the next one waits"
    assert inside.writer.text[4], "a short one is read with the streams"
    assert inside.loop._context._computing == 1, "half of the threads are elsewhere"
    gate.open()
    until(inside, lambda: {2, 3} <= inside.writer.ends.keys())
    assert apart(inside).flown == len(first.prompt) + len(second.prompt) - 2, "all but how texts begin"
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    inside.machine.turn()
    assert inside.loop._context._computing == 2
    inside.machine.cancel(1)
    # Who comes later finds what was read.
    inside.submit(5, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    inside.run()
    end = inside.writer.ends[5]
    assert isinstance(end, Done) and end.usage.cached_tokens == end.usage.prompt_tokens - 1
    assert inside.writer.text[5] == inside.writer.text[2]


@pytest.mark.parametrize("way", ["cancelled", "deadline"])
def test_who_leaves_meanwhile_is_waited_for_by_nobody(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    running, gate = stream(inside), Gate(apart(inside), monkeypatch)
    inside.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    until(inside, gate.held.is_set)
    leaver = branch(inside, 2)
    if way == "cancelled":
        inside.machine.cancel(2)
    else:
        leaver.deadline = 0.0
        inside.machine.turn()
    assert leaver.state is State.OVER and leaver.sequence == -1
    inside.submit(3, GenerateRequest("z" * 200, max_tokens=5, sampling=ENDLESS))
    said = running.generated
    for _ in range(10):
        inside.machine.turn()
    assert running.generated == said + 10 and branch(inside, 3).apart == -1, "its place is not free yet"
    gate.open()
    until(inside, lambda: 3 in inside.writer.ends)
    assert apart(inside).moved > 0
    inside.machine.cancel(1)
    assert not inside.loop.busy


def test_without_streams_the_rest_is_read_with_all_threads(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    here, used = apart(inside), list[int]()
    decode, pieces = here.decode, here._pieces

    def hurried() -> tuple[int, int]:
        assert here._hurry.wait(30)
        return pieces()

    def counted() -> int:
        assert here._context is not None
        verdict = decode()
        used.append(here._context._computing)
        return verdict

    monkeypatch.setattr(here, "_pieces", hurried)
    monkeypatch.setattr(here, "decode", counted)
    inside.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    until(inside, lambda: here.busy)
    inside.machine.cancel(1)
    inside.run()
    assert here.flown == 0 and used and set(used) == {2}
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)


def test_what_fails_meanwhile_is_read_with_the_others(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    monkeypatch.setattr(apart(inside), "_pieces", lambda: (-3, 0))
    inside.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    until(inside, lambda: 2 in inside.writer.ends)
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    assert inside.loop.counters.decode_failures == 1 and apart(inside).moved == 0
    inside.machine.cancel(1)


def test_memory_is_given_back_though_nobody_fetched_what_was_computed(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    gate = Gate(apart(inside), monkeypatch)
    inside.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    until(inside, gate.held.is_set)
    assert apart(inside).free() == 0, "somebody is there"
    inside.machine.cancel(2)
    inside.machine.cancel(1)
    gate.open()
    assert apart(inside).free() > 0 and not apart(inside).busy


@pytest.mark.parametrize("settings", [{"threads": 1}, {"draft": True}])
def test_where_threads_are_few_or_busy_one_comes_after_the_other(
    random_model: Path, settings: dict[str, Any]
) -> None:
    if "draft" in settings:
        settings = {"draft": str(random_model)}
    made = InProcess(random_model, **{"num_ctx": 1200, "cells": 4096, "threads": 2, "lookup": 0, **settings})
    apart(made).least, apart(made).beside = 8, 0
    stream(made)
    made.submit(2, GenerateRequest(PROMPT, max_tokens=20, sampling=ENDLESS))
    until(made, lambda: 2 in made.writer.ends)
    assert apart(made).moved > 0 and apart(made).flown == 0

"""Prompts that are read in a context of their own, while streams go on with the other half of the threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_engine.runner.apart import Apart, Flown
from llm_engine.runner.branch import Branch, State
from llm_engine.runner.embed import Job
from llm_engine.runner.messages import Done, GenerateRequest, SamplingParams
from llm_engine.runner.pace import PIECE

from tests.engine.runner.inprocess import InProcess, leaks

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)
PROMPT = "".join(f"{n} steps, " for n in range(60))


class Gate:
    """Holds what is computed apart until it is told to go on; `held` is set when something waits there."""

    def __init__(self, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self._open, self._fly = threading.Event(), threading.Event(), apart._fly
        monkeypatch.setattr(apart, "_fly", self._wait)

    def _wait(self) -> Flown:
        self.held.set()
        assert self._open.wait(30)
        return self._fly()

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


def stream(inside: InProcess) -> Branch:
    """The first request, which writes for as long as it is not cancelled."""
    inside.submit(1, GenerateRequest("run", max_tokens=1 << 20, shift=True, sampling=ENDLESS))
    inside.machine.turn()
    assert branch(inside, 1).state is State.WRITING
    return branch(inside, 1)


def read(inside: InProcess, number: int, prompt: str = PROMPT) -> None:
    inside.submit(number, GenerateRequest(prompt, max_tokens=20, sampling=ENDLESS))


def until(inside: InProcess, true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit, "it never comes about"
        inside.machine.turn()


def held(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The second request is in the air, and stays there until the gate opens."""
    gate = Gate(apart(inside), monkeypatch)
    read(inside, 2)
    until(inside, gate.held.is_set)
    return gate


def alone(random_model: Path, prompt: str, count: int) -> str:
    other = InProcess(random_model, num_ctx=1200, cells=4096, num_batch=512, lookup=0)
    said = other.say([prompt], count)[0]
    assert isinstance(said, str)
    return said


def test_streams_go_on_while_a_prompt_is_read(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, gate = stream(inside), Gate(apart(inside), monkeypatch)
    read(inside, 2)
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
    read(inside, 5)
    inside.run()
    end = inside.writer.ends[5]
    assert isinstance(end, Done) and end.usage.cached_tokens == end.usage.prompt_tokens - 1
    assert inside.writer.text[5] == inside.writer.text[2]


@pytest.mark.parametrize("way", ["cancelled", "deadline"])
def test_who_leaves_meanwhile_is_waited_for_by_nobody(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    running, gate = stream(inside), held(inside, monkeypatch)
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
    decode, pieces = here.decode, here._fly

    def hurried() -> Flown:
        assert here._hurry.wait(30)
        return pieces()

    def counted() -> int:
        assert here._context is not None
        verdict = decode()
        used.append(here._context._computing)
        return verdict

    monkeypatch.setattr(here, "_fly", hurried)
    monkeypatch.setattr(here, "decode", counted)
    read(inside, 2)
    until(inside, lambda: here.busy)
    inside.machine.cancel(1)
    inside.run()
    assert here.flown == 0 and used and set(used) == {2}
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)


def test_prompts_take_turns(inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(inside)
    here, flights = apart(inside), list[tuple[int, int]]()
    begin = here.begin

    def noted() -> None:
        assert here.branch is not None
        flights.append((here.branch.request_id, here.batch.size))
        begin()

    monkeypatch.setattr(here, "begin", noted)
    other = "a different one " * 18
    for number, prompt in ((2, PROMPT), (3, other)):
        read(inside, number, prompt)
    until(inside, lambda: {2, 3} <= inside.writer.ends.keys())
    first = flights[:4]
    assert {number for number, _ in first} == {2, 3} and max(size for _, size in first) <= 2 * PIECE
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    assert inside.writer.text[3] == alone(random_model, other, 20)
    inside.machine.cancel(1)


def test_who_is_not_worth_it_is_read_meanwhile(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(inside)
    gate = Gate(apart(inside), monkeypatch)
    for number, prompt in ((2, "z" * 300), (3, "w" * 300)):
        inside.submit(number, GenerateRequest(prompt, max_tokens=5, sampling=ENDLESS))
    until(inside, gate.held.is_set)
    apart(inside)._cells = 400
    inside.submit(4, GenerateRequest(PROMPT, max_tokens=400, sampling=ENDLESS))
    inside.machine.turn()
    reading, read = branch(inside, 4), 0
    while reading.state is not State.WRITING:
        read, before = reading.computed, read
        assert read > before or read == 0, "in every turn"
        inside.machine.turn()
    assert {2, 3} == {b.request_id for b in inside.loop.running if b.state is State.READING}
    gate.open()
    until(inside, lambda: {2, 3} <= inside.writer.ends.keys())
    for number in (1, 4):
        inside.machine.cancel(number)


def test_who_leaves_in_a_later_flight_leaves_what_came_before_to_others(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    read(inside, 2)
    until(inside, lambda: apart(inside).moved > 0)
    leaver = branch(inside, 2)
    assert 512 <= leaver.computed < leaver.count
    gate = Gate(apart(inside), monkeypatch)
    if apart(inside).busy:  # it began the next one in the same turn
        gate.held.set()
    until(inside, gate.held.is_set)
    read(inside, 3)
    inside.machine.turn()
    inside.machine.cancel(2)
    gate.open()
    until(inside, lambda: 3 in inside.writer.ends)
    end = inside.writer.ends[3]
    assert isinstance(end, Done) and end.usage.cached_tokens >= 512
    assert inside.writer.text[3] == alone(random_model, PROMPT, 20)
    inside.machine.cancel(1)


def test_a_flight_that_is_cut_short_goes_on_from_there(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    here, cut = apart(inside), list[int]()
    view = here.batch.view

    def hurried(start: int, end: int) -> Any:
        if not cut:
            cut.append(end)
            here.hurry()
        return view(start, end)

    monkeypatch.setattr(here.batch, "view", hurried)
    read(inside, 2)
    until(inside, lambda: here.moved > 0)
    assert cut == [64] and here.moved == 64
    until(inside, lambda: 2 in inside.writer.ends)
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    inside.machine.cancel(1)


def test_nobody_spins_behind_a_flight_that_nobody_wants(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    gate = Gate(apart(inside), monkeypatch)
    for number, prompt in ((2, PROMPT), (3, "z" * 300)):
        inside.submit(number, GenerateRequest(prompt, max_tokens=5, sampling=ENDLESS))
    until(inside, gate.held.is_set)
    flying = apart(inside).flying
    assert flying is not None
    inside.machine.cancel(flying.request_id)
    inside.machine.cancel(1)
    before = inside.loop.counters.turns
    timer = threading.Timer(0.3, gate.open)
    timer.start()
    inside.run()
    timer.join()
    assert inside.loop.counters.turns - before < 20


def test_whoever_waits_for_the_same_prompt_takes_it_over(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    gate = held(inside, monkeypatch)
    inside.submit(3, GenerateRequest(PROMPT, n=2, max_tokens=20, sampling=ENDLESS))
    for _ in range(3):
        inside.machine.turn()
    assert {b.request_id for b in inside.loop.queue.waiting} == {3}
    gate.open()
    until(inside, lambda: {2, 3} <= inside.writer.ends.keys() and inside.loop.queue.waiting == [])
    until(inside, lambda: len(inside.loop.running) == 1)
    end = inside.writer.ends[3]
    assert isinstance(end, Done) and end.usage.cached_tokens == end.usage.prompt_tokens - 1
    expected = alone(random_model, PROMPT, 20)
    assert inside.writer.text[2] == expected and len(inside.writer.text[3]) == 2 * len(expected)
    inside.machine.cancel(1)


def test_texts_to_embed_make_a_flight_hurry(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(inside)
    gate = held(inside, monkeypatch)
    assert not apart(inside)._hurry.is_set()
    inside.machine.embed(Job(9, [np.array([5, 6, 7], dtype=np.int32)]), "mean")
    inside.machine.turn()
    assert apart(inside)._hurry.is_set()
    gate.open()
    until(inside, lambda: 2 in inside.writer.ends)
    inside.machine.cancel(1)


def test_streams_that_half_of_the_threads_would_make_too_slow_keep_them_all(inside: InProcess) -> None:
    stream(inside)
    inside.loop._pace._gap, inside.loop._pace._base = 1e-9, 1.0
    read(inside, 2)
    until(inside, lambda: 2 in inside.writer.ends)
    assert apart(inside).flown == 0 and apart(inside).moved > 0
    inside.machine.cancel(1)


@pytest.mark.parametrize("way", ["llama.cpp refuses", "it raises", "it cannot be moved"])
def test_what_fails_meanwhile_is_read_with_the_others(
    inside: InProcess,
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    way: str,
) -> None:
    stream(inside)
    if way == "llama.cpp refuses":
        monkeypatch.setattr(apart(inside), "_fly", lambda: Flown(-3, 0, 0.0))
    elif way == "it raises":
        monkeypatch.setattr(apart(inside), "_fly", lambda: Flown(*[]))
    else:
        monkeypatch.setattr(inside.loop.cache, "lay", lambda *_: False)
    read(inside, 2)
    until(inside, lambda: 2 in inside.writer.ends)
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    assert apart(inside).moved == 0
    assert inside.loop.counters.decode_failures == (way != "it cannot be moved")
    assert "no prompts are read apart any more" in capfd.readouterr().err
    inside.machine.cancel(1)


def test_cells_that_were_taken_meanwhile_are_found_again(
    inside: InProcess, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    gate = held(inside, monkeypatch)
    make_room, refused = inside.loop.cache.make_room, list[int]()

    def once(count: int) -> bool:
        if apart(inside)._flight is None and not refused:
            refused.append(count)
            return False
        return make_room(count)

    monkeypatch.setattr(inside.loop.cache, "make_room", once)
    gate.open()
    until(inside, lambda: 2 in inside.writer.ends)
    assert refused == [512] and apart(inside).moved > 0
    assert inside.writer.text[2] == alone(random_model, PROMPT, 20)
    inside.machine.cancel(1)


def test_memory_is_given_back_though_nobody_fetched_what_was_computed(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(inside)
    gate = held(inside, monkeypatch)
    assert apart(inside).free() == 0, "somebody is there"
    inside.machine.cancel(2)
    inside.machine.cancel(1)
    assert apart(inside).free() == 0, "nobody waits for what is still computed"
    gate.open()
    flight = apart(inside)._flight
    assert flight is not None and flight.result(30)
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
    read(made, 2)
    until(made, lambda: 2 in made.writer.ends)
    assert apart(made).moved > 0 and apart(made).flown == 0

"""Streams go on while prompts are read: how much may be read, or drafted, between two of their tokens.

Time is told by the tokens that are computed, so that what is measured does not depend on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llm_engine.runner import loop as loop_module
from llm_engine.runner.branch import State
from llm_engine.runner.draft import READS, Drafter
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.pace import LEAST, PIECE
from llm_engine.runner.share import CRUMB

from tests.engine.runner.inprocess import InProcess

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)
LONG = 1500


class Clock:
    """A thousandth of a second for each token that llama.cpp computes."""

    def __init__(self, inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.0
        monkeypatch.setattr(loop_module, "time", self)
        batch = inside.loop._batch
        decode = batch.decode

        def timed(context: Any) -> int:
            self.now += batch.size / 1000
            return decode(context)

        monkeypatch.setattr(batch, "decode", timed)

    def monotonic(self) -> float:
        return self.now


def stream(inside: InProcess) -> None:
    inside.submit(1, GenerateRequest("run", max_tokens=600, sampling=ENDLESS))
    while not any(branch.state is State.WRITING for branch in inside.loop.running):
        inside.machine.turn()


def gaps(inside: InProcess, clock: Clock) -> list[tuple[float, int]]:
    """How long the stream waited for each of its tokens while prompts were read, and what was read then."""
    (first,) = (branch for branch in inside.loop.running if branch.request_id == 1)
    found = []
    while any(b.state is not State.WRITING for b in (*inside.loop.running, *inside.loop.queue.waiting)):
        began, said = clock.now, first.generated
        before = sum(b.computed for b in inside.loop.running if b is not first)
        inside.machine.turn()
        assert first.state is State.WRITING and first.generated > said, "the stream got nothing in a turn"
        found.append(
            (clock.now - began, sum(b.computed for b in inside.loop.running if b is not first) - before)
        )
    return found


@pytest.mark.parametrize("settings", [{}, {"idle_cells": 0, "park_bytes": 1 << 24}])
@pytest.mark.parametrize("gap_ms", [300, 700])
def test_a_stream_waits_no_longer_than_it_may_while_a_long_prompt_is_read(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, gap_ms: int, settings: dict[str, Any]
) -> None:
    inside = InProcess(random_model, num_ctx=2048, num_batch=2048, gap_ms=gap_ms, lookup=0, **settings)
    clock = Clock(inside, monkeypatch)
    inside.submit(0, GenerateRequest("z" * 300, max_tokens=1, sampling=ENDLESS))
    inside.run()
    stream(inside)
    for number in (2, 3):
        text = "xy"[number - 2] * LONG
        inside.submit(number, GenerateRequest(text, max_tokens=500, sampling=ENDLESS))
    found = gaps(inside, clock)
    assert max(wait for wait, _ in found) <= (gap_ms + PIECE / 2 + CRUMB + 4) / 1000
    # And it is used: the prompts do not take longer than they must.
    assert len(found) <= 2 * LONG / (gap_ms - PIECE) + 8


def test_where_no_pace_can_be_kept_the_least_is_read(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = InProcess(random_model, num_ctx=2048, num_batch=2048, gap_ms=1, lookup=0)
    clock = Clock(inside, monkeypatch)
    stream(inside)
    inside.submit(2, GenerateRequest("y" * LONG, max_tokens=500, sampling=ENDLESS))
    assert max(read for _, read in gaps(inside, clock)) <= LEAST + CRUMB + 1


def test_what_a_turn_spends_before_it_computes_is_not_spent_again(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefixes that are parked or restored take their time, too."""
    inside = InProcess(random_model, num_ctx=2048, num_batch=2048, gap_ms=600, lookup=0)
    clock = Clock(inside, monkeypatch)

    def slow(**_how: bool) -> None:
        clock.now += 0.4

    stream(inside)
    monkeypatch.setattr(inside.loop.cache, "settle", slow)
    inside.submit(2, GenerateRequest("y" * LONG, max_tokens=500, sampling=ENDLESS))
    assert max(wait for wait, _ in gaps(inside, clock)) <= 0.6 + (PIECE / 2 + CRUMB + 4) / 1000


def drafter(inside: InProcess) -> Drafter:
    found = inside.loop._speculator._drafter
    assert found is not None
    return found


def test_the_draft_reads_long_prompts_in_pieces_and_no_prefix_twice(random_model: Path) -> None:
    inside = InProcess(random_model, num_ctx=2048, num_batch=2048, lookup=0, draft=str(random_model))
    draft = drafter(inside)
    stream(inside)
    prompt = "p" * LONG
    most, read = 0, draft.read
    inside.submit(2, GenerateRequest(prompt, max_tokens=120, sampling=ENDLESS))
    while 2 not in inside.writer.ends:
        before = draft.read
        inside.machine.turn()
        most = max(most, draft.read - before)
    assert most <= READS
    assert draft.read - read >= LONG
    inside.loop.cancel(1)
    inside.submit(3, GenerateRequest(prompt + "more", max_tokens=40, sampling=ENDLESS))
    read = draft.read
    inside.run()
    assert 4 <= draft.read - read < 200
    assert inside.loop.stats().accepted_tokens > 0


def test_who_gives_way_gives_back_the_draft_s_place(random_model: Path) -> None:
    inside = InProcess(
        random_model, num_ctx=100, cells=160, num_parallel=3, lookup=0, draft=str(random_model)
    )
    for number in range(5):
        inside.submit(number, GenerateRequest(f"{number}" * 40, max_tokens=55, sampling=ENDLESS))
    inside.run()
    assert inside.loop.stats().preemptions > 0
    assert not drafter(inside)._followers
    assert {inside.writer.ends[number].usage.completion_tokens for number in range(5)} == {55}  # type: ignore[union-attr]

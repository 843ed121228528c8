"""Parked prefixes against a dictionary: what a chain gives back is the prefix, and never over the budget."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.runner import cache, room, seqstate
from llm_engine.runner.messages import Failed, GenerateRequest, SamplingParams
from llm_engine.runner.parking import LEFT_FREE, WORTH_PARKING, Parking, default_budget
from llm_engine.runner.room import available_ram
from llm_engine.runner.seqstate import Bytes, read_state

from tests.engine.runner.inprocess import InProcess

Tokens = np.ndarray[tuple[int], np.dtype[np.int32]]


ROOMY = 1 << 40


def park(parking: Parking, tokens: Tokens) -> bool:
    """Four bytes for a token: the cells of the test are the tokens themselves."""

    def save(start: int, fits: Callable[[int], bool]) -> Bytes | None:
        return tokens[start:].view(np.uint8).copy() if fits(4 * (len(tokens) - start)) else None

    return parking.park(tokens, save)


def restored(parking: Parking, tokens: Tokens, beyond: int) -> Tokens:
    have, parts = beyond, []
    for piece, upto in parking.chain(tokens, beyond):
        assert piece.start <= have < upto <= piece.end
        parts.append(piece.data.view(np.int32)[have - piece.start : upto - piece.start])
        have = upto
    return np.concatenate([tokens[:beyond], *parts])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([400, 1500, 1 << 20]))
def test_what_comes_back_is_the_prefix(seed: int, budget: int) -> None:
    rng = random.Random(seed)
    parking = Parking(budget)
    seen: list[list[int]] = [[rng.randrange(2) for _ in range(60)] for _ in range(2)]
    for _ in range(40):
        base = rng.choice(seen)
        more = [rng.randrange(2) for _ in range(rng.randrange(50))]
        whole = (base[: rng.randrange(len(base) + 1)] + more)[:150] or [0]
        seen.append(whole)
        tokens = np.array(whole, dtype=np.int32)
        length = parking.match(tokens)
        beyond = rng.randrange(length + 1)
        back = restored(parking, tokens, beyond)
        assert back.tolist() == whole[: max(length, beyond)]
        if park(parking, tokens):
            assert len(whole) - length >= WORTH_PARKING
            assert parking.match(tokens) == len(whole)
            assert restored(parking, tokens, 0).tolist() == whole
        assert parking.bytes == 4 * parking.tokens <= budget
    if budget == 1 << 20:
        assert parking.dropped == 0
        assert all(parking.match(np.array(whole)) > len(whole) - WORTH_PARKING for whole in seen[2:])


def run(start: int, count: int) -> Tokens:
    return np.arange(start, start + count, dtype=np.int32)


def test_what_begins_alike_is_stored_once() -> None:
    parking = Parking(1 << 20)
    assert park(parking, np.concatenate((run(0, 100), run(500, 20))))
    assert park(parking, np.concatenate((run(0, 100), run(700, 20))))
    assert (len(parking), parking.tokens) == (2, 140)
    assert not park(parking, np.concatenate((run(0, 100), run(700, 20), run(0, WORTH_PARKING - 1))))


def test_the_least_recently_used_end_goes_first_and_never_what_others_go_on_from() -> None:
    parking = Parking(4 * 120)
    assert park(parking, run(0, 60))
    assert park(parking, run(1000, 30))
    assert park(parking, run(0, 90))
    assert parking.match(run(1000, 30)) == 30
    assert park(parking, run(2000, 20))
    # The end of the first prefix made room, its beginning stayed.
    assert parking.match(run(0, 90)) == 60
    assert parking.match(run(1000, 30)) == 30
    assert parking.dropped == 1


def test_what_is_larger_than_the_budget_pushes_nothing_out() -> None:
    parking = Parking(4 * 50)
    assert park(parking, run(0, 40))
    assert not park(parking, run(100, 60))
    assert not park(parking, run(0, 90))
    assert parking.match(run(0, 40)) == 40


def test_a_copy_that_failed_is_not_kept() -> None:
    parking = Parking(1 << 20)
    assert not parking.park(run(0, 40), lambda _start, _fits: None)
    assert (len(parking), parking.match(run(0, 40))) == (0, 0)


def test_the_last_of_the_memory_is_left_to_others() -> None:
    left = LEFT_FREE + 4 * 100
    parking = Parking(1 << 30, lambda: left)
    assert park(parking, run(0, 100))
    left = LEFT_FREE  # what was parked has taken it
    assert park(parking, run(1000, 60))
    assert (parking.match(run(0, 100)), parking.match(run(1000, 60))) == (0, 60)
    left = LEFT_FREE - 4 * 60
    assert not park(parking, run(2000, 20))


def test_what_there_is_room_for_once_is_parked_and_what_there_is_none_for_is_never_copied() -> None:
    """What is free is what is free before the copy: none is made to find out."""
    left = LEFT_FREE + 4 * 100
    parking = Parking(1 << 30, lambda: left)
    sizes = []

    def save(_start: int, fits: Callable[[int], bool]) -> Bytes | None:
        sizes.append(4 * 90)
        nonlocal left
        if not fits(sizes[-1]):
            return None
        left -= sizes[-1]
        return np.zeros(sizes[-1], dtype=np.uint8)

    assert parking.park(run(0, 90), save)
    left = 0
    assert not parking.park(run(1000, 90), save)
    assert (len(sizes), left, len(parking)) == (2, 0, 1)


def test_a_cache_without_memory_to_spare_copies_nothing(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = InProcess(random_model, idle_cells=0, park_bytes=1 << 24)
    parking = inside.loop.cache.parking
    assert parking is not None
    copied: list[int] = []

    def read(context: object, sequence: int) -> Bytes | None:
        copied.append(sequence)
        return read_state(context, sequence)

    monkeypatch.setattr(cache, "read_state", read)
    for number, (room_, times) in enumerate(((0, 0), (ROOMY, 2))):
        monkeypatch.setattr(parking, "_room", lambda room_=room_: room_)
        for more in ("a", "b"):
            inside.submit(number, GenerateRequest(f"{number}{more}" * 40, max_tokens=1))
            inside.run()
        assert (len(copied), len(parking)) == (times, times)
    # An allocation that fails is no copy, and no end of the runner.
    monkeypatch.setattr(seqstate, "state_size", lambda _context, _sequence: 1 << 62)
    inside.submit(9, GenerateRequest("c" * 80, max_tokens=1))
    inside.run()
    assert not isinstance(inside.writer.ends[9], Failed)
    assert len(parking) == 2


def test_beside_a_stream_prefixes_are_parked_piece_by_piece(random_model: Path) -> None:
    """And what comes back in pieces is what was there."""
    sampling = SamplingParams(temperature=0, ignore_eos=True)

    def ask(prompt: str, count: int) -> GenerateRequest:
        return GenerateRequest(prompt, max_tokens=count, sampling=sampling, echo_tokens=True)

    inside = InProcess(random_model, num_ctx=1024, idle_cells=0, park_bytes=1 << 24)
    kept, loop = inside.loop.cache, inside.loop
    kept.piece = 64
    prompt = "what was said before " * 20
    inside.submit(2, ask("a stream", 60))
    inside.machine.turn()
    inside.machine.turn()
    inside.submit(1, ask(prompt, 8))
    steps, parked = [], 0
    while 2 not in inside.writer.ends:
        inside.machine.turn()
        steps.append(loop.stats().parked_tokens - parked)
        parked += steps[-1]
    assert parked >= len(prompt)
    assert 0 < max(steps) <= kept.piece
    inside.submit(3, ask(prompt, 8))
    inside.run()
    assert inside.writer.said[3, 0] == inside.writer.said[1, 0]
    assert loop.stats().restored_tokens >= len(prompt) - kept.piece


def test_what_is_given_back_is_the_oldest_and_no_more_than_there_is() -> None:
    parking = Parking(1 << 20, lambda: ROOMY)
    for start in (0, 1000, 2000):
        assert park(parking, run(start, 50))
    assert parking.give_back(4 * 60) == 4 * 100
    assert [parking.match(run(start, 50)) for start in (0, 1000, 2000)] == [0, 0, 50]
    assert parking.give_back(1 << 30) == 4 * 50
    assert (parking.bytes, parking.tokens, parking.give_back(1)) == (0, 0, 0)


def test_the_room_heeds_every_group_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel lays them out: limits of a service, and of the slice it is in."""
    own = tmp_path / "cgroup"
    own.write_text("0::/a.slice/b.service\n")
    monkeypatch.setattr(room, "OWN", own)
    monkeypatch.setattr(room, "CGROUPS", tmp_path)
    whole = available_ram()
    for name, limit, used in (("a.slice", 900, 500), ("a.slice/b.service", "max", 100)):
        group = tmp_path / name
        group.mkdir()
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text("anon 300\nfile 150\nshmem 50\n")
    assert whole > 1 << 20
    assert available_ram() == 900 - 500 + 150 - 50
    (tmp_path / "a.slice/b.service/memory.max").write_text("120\n")
    assert available_ram() == 120 - 100 + 150 - 50
    assert default_budget() == 120 // 4


def test_the_default_budget_is_bounded() -> None:
    assert 0 < default_budget() <= 8 << 30

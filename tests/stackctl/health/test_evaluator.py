"""The evaluator alone: hysteresis, flapping, silence, reminders and clocks, as sequences of observations."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackctl.health.evaluator import CheckState, Event, Kind, Policy, evaluate
from stackctl.health.model import Result, Status, not_now, skipped
from stackctl.health.moment import Moment

LETTERS = {"O": Status.OK, "W": Status.WARNING, "C": Status.CRITICAL, "U": Status.UNKNOWN}
SKIPS = {"S": skipped("not configured"), "N": not_now("no model is loaded")}
START = Moment(1_700_000_000.0, 1000.0, "boot-1")


def play(
    letters: str,
    policy: Policy | None = None,
    *,
    step: float = 300.0,
    state: CheckState | None = None,
    at: Moment = START,
    silenced: bool = False,
) -> tuple[CheckState, list[Event], Moment]:
    policy = policy or Policy()
    state = state or CheckState()
    events: list[Event] = []
    for letter in letters:
        at = at.plus(step)
        result = SKIPS.get(letter) or Result(LETTERS[letter], letter)
        state, event = evaluate(state, result, at, policy, silenced=silenced)
        if event:
            events.append(event)
    return state, events, at


def kinds(events: list[Event]) -> list[str]:
    return [f"{event.kind}:{event.status.name}" for event in events]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("OOOO", []),
        ("CC", []),
        ("CCC", ["problem:CRITICAL"]),
        ("CCO", []),
        ("CCOCC", []),
        ("CCCO", ["problem:CRITICAL"]),
        ("CCCOO", ["problem:CRITICAL", "recovery:OK"]),
        ("WWW", ["problem:WARNING"]),
        ("WWC", ["problem:WARNING"]),
        ("WWCC", ["problem:WARNING"]),
        ("WWCCC", ["problem:WARNING", "problem:CRITICAL"]),
        ("CCCWW", ["problem:CRITICAL", "problem:WARNING"]),
        ("CCCWO", ["problem:CRITICAL", "problem:WARNING"]),
        ("UUUUUUUUUUUU", []),
        ("CCUUUC", ["problem:CRITICAL"]),
        ("CCCUUUU", ["problem:CRITICAL"]),
        ("CCCOUUO", ["problem:CRITICAL", "recovery:OK"]),
        ("CCNNNC", ["problem:CRITICAL"]),
        ("CCCNNNCOO", ["problem:CRITICAL", "recovery:OK"]),
        ("CCSC", []),
        ("CCCSS", ["problem:CRITICAL", "recovery:OK"]),
    ],
)
def test_states_are_confirmed_before_anyone_is_told(letters: str, expected: list[str]) -> None:
    _, events, _ = play(letters)
    assert kinds(events) == expected


def test_unknown_keeps_the_confirmed_state_and_says_since_when() -> None:
    state, _, _ = play("CCCU")
    assert state.hard is Status.CRITICAL
    assert state.seen is Status.UNKNOWN
    assert state.unknown_since is not None
    state, _, _ = play("C", state=state, at=START.plus(5000))
    assert state.unknown_since is None


def test_flapping_is_said_once_and_its_end_once() -> None:
    policy = Policy(fail_after=1, ok_after=1)
    state, events, at = play("OCOCOCOCOCOCOCOC", policy)
    assert kinds(events)[-1] == "flapping:OK" or kinds(events)[-1] == "flapping:CRITICAL"
    assert sum(event.kind is Kind.FLAPPING for event in events) == 1
    assert state.flapping
    state, events, _ = play("O" * 20, policy, state=state, at=at)
    assert kinds(events) == ["stable:OK"]
    assert not state.flapping


def test_slow_flapping_over_a_day_counts_too() -> None:
    # Thirty minutes up, thirty minutes down: never four changes in ten runs.
    _, events, _ = play("OOOOOOCCCCCC" * 24)
    assert Kind.FLAPPING in {event.kind for event in events}
    assert len(events) <= 8


WEEK = 7 * 288


@pytest.mark.parametrize(
    "pattern",
    [
        "OC",
        "OOC",
        "OOCC",
        "OOOCCC",
        "OOOOOOCCCCCC",
        "O" * 20 + "C" * 20,
        "OOOWWWCCC",
        "OUCUOUC",
        "CCCS",
        "CCCN",
        "CS",
        "OOCCCS",
        "CCCNSO",
        "O" * 100 + "CCC",
    ],
)
@pytest.mark.parametrize("quick", [True, False])
def test_a_week_of_flapping_is_a_bounded_number_of_messages(pattern: str, quick: bool) -> None:
    policy = Policy(fail_after=1, ok_after=1) if quick else Policy()
    letters = (pattern * (WEEK // len(pattern) + 1))[:WEEK]
    _, events, _ = play(letters, policy)
    assert len(events) <= 60, len(events)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 0.99), st.booleans())
def test_any_week_is_bounded(seed: int, chance: float, quick: bool) -> None:
    source = random.Random(seed)
    letters, current = [], "O"
    for _ in range(WEEK):
        if source.random() < chance:
            current = source.choice("OWCUSN")
        letters.append(current)
    _, events, _ = play("".join(letters), Policy(fail_after=1, ok_after=1) if quick else Policy())
    assert len(events) <= 90


@given(st.text("OWCUSN", max_size=60))
def test_people_are_never_told_the_same_twice_without_a_reminder(letters: str) -> None:
    state, told = CheckState(), Status.OK
    at = START
    for letter in letters:
        at = at.plus(60)
        result = SKIPS.get(letter) or Result(LETTERS[letter], "")
        state, event = evaluate(state, result, at, Policy())
        if event and event.kind in (Kind.PROBLEM, Kind.RECOVERY):
            assert event.status is not told
        if event:
            told = event.status
            assert event.status is state.hard


def test_silence_holds_the_message_back_until_it_ends() -> None:
    state, events, at = play("CCCC", silenced=True)
    assert events == []
    assert state.hard is Status.CRITICAL
    _, events, _ = play("C", state=state, at=at)
    assert kinds(events) == ["problem:CRITICAL"]


def test_what_came_and_went_in_silence_is_never_told() -> None:
    state, _, at = play("CCCCOO", silenced=True)
    _, events, _ = play("OO", state=state, at=at)
    assert events == []


def test_reminders_come_at_their_interval() -> None:
    state, events, at = play("CCC", Policy(reminder=3600))
    _, events, _ = play("C" * 36, Policy(reminder=3600), state=state, at=at)
    assert kinds(events) == ["reminder:CRITICAL"] * 3
    _, events, _ = play("C" * 36, Policy(reminder=0), state=state, at=at)
    assert events == []


def test_a_clock_set_forward_fires_no_timer() -> None:
    state, _, at = play("CCC", Policy(reminder=3600))
    jumped = replace(at, wall=at.wall + 10 * 365 * 86400)
    state, events, _ = play("C", Policy(reminder=3600), state=state, at=jumped)
    assert events == []
    assert len(state.history) == 4


def test_a_clock_set_back_loses_nothing() -> None:
    state, _, at = play("CC")
    jumped = replace(at, wall=at.wall - 86400)
    _, events, _ = play("C", state=state, at=jumped)
    assert kinds(events) == ["problem:CRITICAL"]


def test_a_reboot_with_a_clock_in_the_past_starts_counting_anew() -> None:
    state, _, _ = play("CC")
    rebooted = Moment(0.0, 5.0, "boot-2")
    state, events, at = play("CC", state=state, at=rebooted)
    assert events == []
    _, events, _ = play("C", state=state, at=at)
    assert kinds(events) == ["problem:CRITICAL"]


def test_observations_before_a_long_gap_do_not_confirm() -> None:
    state, _, at = play("CC")
    _, events, _ = play("C", state=state, at=at.plus(2 * 86400))
    assert events == []


def test_what_is_no_longer_watched_is_taken_back_once_the_silence_ends() -> None:
    state, _, at = play("CCC")
    state, events, at = play("SS", state=state, at=at, silenced=True)
    assert events == []
    assert (state.hard, state.told) == (Status.OK, Status.CRITICAL)
    state, events, _ = play("SSS", state=state, at=at)
    assert kinds(events) == ["recovery:OK"]
    assert state.told is Status.OK


def test_nothing_to_look_at_for_now_keeps_what_was_confirmed() -> None:
    state, events, _ = play("CCCNNNNNNNN")
    assert kinds(events) == ["problem:CRITICAL"]
    assert (state.hard, state.told, state.failures) == (Status.CRITICAL, Status.CRITICAL, 3)


def test_memory_is_kept_unless_the_check_replaces_it() -> None:
    state, _ = evaluate(CheckState(memory={"a": 1}), Result(Status.OK, ""), START, Policy())
    assert state.memory == {"a": 1}
    state, _ = evaluate(state, Result(Status.OK, "", memory={"b": 2}), START, Policy())
    assert state.memory == {"b": 2}

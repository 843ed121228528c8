"""Turns observations into states that deserve a person's attention.

Pure: (what was known, what was seen, when) -> (what is known now, what to say). Guarantees:

- a failure is confirmed only by `fail_after` observations in a row, a recovery by `ok_after`; the confirmed
  level is the mildest of the failing ones, so a single CRITICAL among WARNINGs does not escalate;
- UNKNOWN observations are shown but neither confirm nor clear anything, no more than a look that has nothing
  to look at for now; what is not watched any longer is taken for well, and that counts as a change like any;
- a check that changes too often, within a few runs or over a day, is said to be flapping once, then is quiet
  until it has been calm for a hold time that doubles with each episode: the number of messages is bounded;
- a message is due when the confirmed state differs from what people were last told, so one that a silence
  or a crash held back is not lost;
- time differences are clock-jump proof (`moment`); an unknowable difference never makes a timer fire.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from stackctl.health.model import Result, Status, badness
from stackctl.health.moment import Moment

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of one check, taken from the configuration."""

    fail_after: int = 3
    ok_after: int = 2
    stale_after: float = 3600.0
    reminder: float = _DAY
    flap_window: int = 10
    flap_changes: int = 4
    flap_daily: int = 6
    flap_hold: float = 3600.0

    @property
    def memory(self) -> int:
        return max(self.fail_after, self.ok_after, self.flap_window)


class Kind(enum.StrEnum):
    PROBLEM = "problem"
    RECOVERY = "recovery"
    FLAPPING = "flapping"
    STABLE = "stable"
    REMINDER = "reminder"


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell people; `before` is what they believed."""

    kind: Kind
    status: Status
    before: Status


@dataclass(frozen=True, slots=True)
class CheckState:
    """What is kept about one check between runs."""

    hard: Status = Status.OK
    hard_since: Moment | None = None
    seen: Status | None = None
    seen_at: Moment | None = None
    observed_at: Moment | None = None
    history: tuple[Status, ...] = ()
    failures: int = 0
    unknown_since: Moment | None = None
    flapping: bool = False
    calm_since: Moment | None = None
    hold: float = 0.0
    flap_ended: Moment | None = None
    hard_changes: tuple[Moment, ...] = ()
    told: Status = Status.OK
    told_at: Moment | None = None
    told_flapping: bool = False
    summary: str = ""
    skipped: bool = False
    memory: dict[str, Any] = field(default_factory=dict)


def evaluate(
    state: CheckState, result: Result, now: Moment, policy: Policy, *, silenced: bool = False
) -> tuple[CheckState, Event | None]:
    """One step. `silenced` holds the message back; the state moves on all the same."""
    state = replace(
        state,
        seen=result.status,
        seen_at=now,
        summary=result.summary,
        skipped=result.skipped,
        memory=state.memory if result.memory is None else result.memory,
    )
    if result.for_now:
        return state, None
    if result.skipped:
        state = _flap(_unwatch(state, now, policy), now, policy)
        return _tell(state, now, policy, silenced)
    if result.status is Status.UNKNOWN:
        return replace(state, unknown_since=state.unknown_since or now), None
    state = _observe(replace(state, unknown_since=None), result.status, now, policy)
    state = _judge(state, now, policy)
    state = _flap(state, now, policy)
    return _tell(state, now, policy, silenced)


def _unwatch(state: CheckState, now: Moment, policy: Policy) -> CheckState:
    """An old failure must not live on; that it came and went still counts for flapping."""
    if state.history and state.history[-1] is not Status.OK:
        state = replace(state, calm_since=now)
    state = replace(state, history=(), failures=0, unknown_since=None)
    return state if state.hard is Status.OK else _changed(state, Status.OK, now, policy)


def _changed(state: CheckState, hard: Status, now: Moment, policy: Policy) -> CheckState:
    recent = tuple(at for at in state.hard_changes if _within(now, at, _DAY))
    return replace(state, hard=hard, hard_since=now, hard_changes=(*recent, now)[-policy.flap_daily :])


def _observe(state: CheckState, status: Status, now: Moment, policy: Policy) -> CheckState:
    gap = None if state.observed_at is None else now.since(state.observed_at)
    history = state.history if gap is not None and gap <= policy.stale_after else ()
    changed = bool(history) and history[-1] != status
    return replace(
        state,
        observed_at=now,
        history=(*history, status)[-policy.memory :],
        failures=0 if status is Status.OK else (state.failures if history else 0) + 1,
        calm_since=now if changed or state.calm_since is None else state.calm_since,
    )


def _judge(state: CheckState, now: Moment, policy: Policy) -> CheckState:
    """Raise to the mildest of the last `fail_after`, lower to the worst of the last `ok_after`."""
    hard = state.hard
    if len(state.history) >= policy.fail_after:
        mildest = min(state.history[-policy.fail_after :], key=badness)
        hard = mildest if badness(mildest) > badness(hard) else hard
    if len(state.history) >= policy.ok_after:
        harshest = max(state.history[-policy.ok_after :], key=badness)
        hard = harshest if badness(harshest) < badness(hard) else hard
    return state if hard is state.hard else _changed(state, hard, now, policy)


def _flap(state: CheckState, now: Moment, policy: Policy) -> CheckState:
    window = state.history[-policy.flap_window :]
    changes = sum(a != b for a, b in itertools.pairwise(window))
    daily = sum(_within(now, at, _DAY) for at in state.hard_changes)
    if not state.flapping:
        if changes < policy.flap_changes and daily < policy.flap_daily:
            return state
        relapse = state.flap_ended is not None and _within(now, state.flap_ended, 2 * _DAY)
        hold = min(state.hold * 2, _DAY) if relapse and state.hold else policy.flap_hold
        return replace(state, flapping=True, hold=hold, calm_since=now)
    calm = None if state.calm_since is None else now.since(state.calm_since)
    if calm is None:
        return replace(state, calm_since=now)
    if calm < state.hold:
        return state
    # The changes that made it flap are dealt with: only new ones may start the next episode.
    return replace(state, flapping=False, flap_ended=now, hard_changes=(), history=window[-1:])


def _tell(state: CheckState, now: Moment, policy: Policy, silenced: bool) -> tuple[CheckState, Event | None]:
    if silenced:
        return state, None
    event: Event | None = None
    if state.flapping and not state.told_flapping:
        event = Event(Kind.FLAPPING, state.hard, state.told)
    elif state.told_flapping and not state.flapping:
        event = Event(Kind.STABLE, state.hard, state.told)
    elif not state.flapping and state.hard is not state.told:
        event = Event(Kind.RECOVERY if state.hard is Status.OK else Kind.PROBLEM, state.hard, state.told)
    elif state.hard is not Status.OK and policy.reminder and state.told_at is not None:
        waited = now.since(state.told_at)
        if waited is None:
            state = replace(state, told_at=now)
        elif waited >= policy.reminder:
            event = Event(Kind.REMINDER, state.hard, state.told)
    if event is None:
        return state, None
    return replace(state, told=state.hard, told_at=now, told_flapping=state.flapping), event


def _within(now: Moment, then: Moment, seconds: float) -> bool:
    elapsed = now.since(then)
    return elapsed is not None and elapsed <= seconds

"""The words of health: a status, a measured value, the result of one check."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Status(enum.IntEnum):
    """The numbers are the exit codes of the Nagios plug-in contract."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# UNKNOWN says less than WARNING: something was seen to be wrong there, here nothing was seen.
_BADNESS = {Status.OK: 0, Status.UNKNOWN: 1, Status.WARNING: 2, Status.CRITICAL: 3}


def badness(status: Status) -> int:
    return _BADNESS[status]


def worst(statuses: list[Status]) -> Status:
    """CRITICAL > WARNING > UNKNOWN > OK."""
    return max(statuses, key=badness, default=Status.OK)


@dataclass(frozen=True, slots=True)
class Metric:
    """One performance value; `unit` is one of "", s, B, %, c (a counter)."""

    name: str
    value: float
    unit: str = ""
    warn: float | None = None
    crit: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one look found; `memory` is kept for the next look (None: keep what is there)."""

    status: Status
    summary: str
    details: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    memory: dict[str, Any] | None = None
    skipped: bool = False
    # Skipped for now only: what was confirmed before still stands, as it does when a look is UNKNOWN.
    for_now: bool = False
    blocked_by: str | None = None
    fix: str | None = None
    duration: float = field(default=0.0, compare=False)


def ok(summary: str, *, metrics: tuple[Metric, ...] = (), memory: dict[str, Any] | None = None) -> Result:
    return Result(Status.OK, summary, metrics=metrics, memory=memory)


def skipped(why: str) -> Result:
    """Not there, or not configured: nothing to watch, and what was told of it is taken back once."""
    return Result(Status.OK, why, skipped=True)


def not_now(why: str, *, memory: dict[str, Any] | None = None) -> Result:
    """Nothing to look at just now: it neither confirms nor clears anything."""
    return Result(Status.OK, why, memory=memory, skipped=True, for_now=True)


def unknown(why: str, *, details: tuple[str, ...] = ()) -> Result:
    """The check itself could not look; never counts as down."""
    return Result(Status.UNKNOWN, why, details=details)

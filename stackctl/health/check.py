"""What a check is: words for people, limits for the machine, and one function that looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackctl.health.model import Result
from stackctl.health.moment import Moment


@dataclass(frozen=True, slots=True)
class Look:
    """What a check is given: its memory, the time, its time limit, and the results it depends on."""

    now: Moment
    memory: dict[str, Any]
    last: Moment | None
    deadline: float
    needs: Mapping[str, Result]
    asked: bool = False

    @property
    def left(self) -> float:
        """Seconds left; never zero, which to a socket means: for ever."""
        return max(0.05, self.deadline - time.monotonic())

    @property
    def elapsed(self) -> float | None:
        """Seconds since this check last looked."""
        return None if self.last is None else self.now.since(self.last)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at. `looks_at`, `why` and `do` are what --explain prints."""

    id: str
    title: str
    looks_at: str
    why: str
    do: str
    run: Callable[[Look], Result]
    needs: tuple[str, ...] = ()
    timeout: float = 10.0
    interval: float = 0.0
    thresholds: str = ""
    remedy: str | None = None
    fail_after: int | None = None
    ok_after: int | None = None
    # Only the stack's own services are expected to be away while an operation such as an upgrade is at work.
    during_operations: bool = field(default=True)

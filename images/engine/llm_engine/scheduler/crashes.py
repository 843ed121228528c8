"""Models whose runner keeps dying: loading them for every request would occupy the machine for nothing.

After one crash the next request loads the model again. After each further one in a row it is refused for
longer, with the time and the last reason, so that a client knows when to come back. A runner that lived for a
minute, or ten minutes without a crash, begin the row anew. The book outlives the residencies it speaks of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from llm_engine.scheduler.errors import CrashLoop

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
WELL = 60.0
"""Seconds of life after which a runner was a good one."""
FORGOTTEN = 600.0


@dataclass
class _Row:
    """Crashes one after the other."""

    count: int
    last: float
    not_before: float
    reason: str


class Crashes:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}

    def note(self, key: str, reason: str, lived: float = 0.0) -> float:
        """A runner ended by itself, `lived` seconds after its load, or while it loaded. How long its model is
        refused from now on."""
        now = self._clock()
        for old in [other for other, row in self._rows.items() if now - row.last > FORGOTTEN]:
            del self._rows[old]
        before = self._rows.get(key)
        count = 1 if before is None or lived >= WELL else before.count + 1
        delay = 0.0 if count == 1 else min(FIRST_DELAY * 2.0 ** (count - 2), LONGEST_DELAY)
        self._rows[key] = _Row(count, now, now + delay, reason)
        return delay

    def check(self, key: str) -> None:
        """Raises CrashLoop where the model is not to be loaded yet."""
        row = self._rows.get(key)
        if row is not None and (left := row.not_before - self._clock()) > 0:
            raise CrashLoop(row.count, row.reason, math.ceil(left))

"""Which backups stay: the newest few, and the newest of each of the last days, weeks and months."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from stackctl.config.backup import Keep

_PERIODS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("daily", lambda at: at.date()),
    ("weekly", lambda at: at.isocalendar()[:2]),
    ("monthly", lambda at: (at.year, at.month)),
)


def kept(times: Iterable[datetime], keep: Keep) -> set[datetime]:
    newest_first = sorted(times, reverse=True)
    chosen = set(newest_first[: keep.last])
    for rule, period_of in _PERIODS:
        seen: set[object] = set()
        for at in newest_first:
            period = period_of(at)
            if period not in seen and len(seen) < getattr(keep, rule):
                seen.add(period)
                chosen.add(at)
    return chosen

"""Maintenance: when nobody is to be told, by `stackctl silence` or by a weekly window in stack.yaml.

A silence never hides a state, it only holds messages back. Silences live in a file of their own, so that
one can be set while a health run is at work; those that were set for a duration end after that duration
even when the clock is set in between.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stackctl.health.moment import Moment
from stackctl.health.plan import Maintenance, Window
from stackctl.health.state import write_atomically

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Silence:
    id: str
    checks: tuple[str, ...]
    created: Moment
    seconds: float
    reason: str
    by: str

    def left(self, now: Moment) -> float:
        """Seconds until it ends; not positive when it has ended."""
        elapsed = now.since(self.created)
        if elapsed is None:
            # Across a reboot the clock fell behind: the end as written is the best that is known.
            return (
                self.created.wall + self.seconds - now.wall if now.wall >= self.created.wall else self.seconds
            )
        return self.seconds - elapsed

    def dump(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "checks": list(self.checks),
            "created": self.created.dump(),
            "seconds": self.seconds,
            "reason": self.reason,
            "by": self.by,
        }

    @classmethod
    def load(cls, data: dict[str, Any]) -> Silence:
        return cls(
            str(data["id"]),
            tuple(data["checks"]),
            Moment.load(data["created"]),
            float(data["seconds"]),
            str(data["reason"]),
            str(data["by"]),
        )


def matches(patterns: tuple[str, ...], check: str) -> bool:
    """`container` covers `container.engine`; `*` and other shell patterns work."""
    return any(
        fnmatch.fnmatchcase(check, pattern) or fnmatch.fnmatchcase(check, pattern + ".*")
        for pattern in patterns
    )


def covering(silences: list[Silence], check: str, now: Moment) -> Silence | None:
    return next((item for item in silences if item.left(now) > 0 and matches(item.checks, check)), None)


def planned(windows: tuple[Maintenance, ...], check: str, now: Moment) -> Maintenance | None:
    return next((item for item in windows if matches(item.checks, check) and in_window(item, now.wall)), None)


def in_window(window: Window, wall: float) -> bool:
    """Whether `wall` lies in the weekly window; one that ends before it starts runs past midnight."""
    here = _local(wall, window.timezone)
    minute = here.hour * 60 + here.minute
    start, end = _minutes(window.start), _minutes(window.end)
    today, yesterday = _DAYS[here.weekday()], _DAYS[(here - timedelta(days=1)).weekday()]
    if start < end:
        return today in window.days and start <= minute < end
    return (today in window.days and minute >= start) or (yesterday in window.days and minute < end)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _local(wall: float, zone: str | None) -> datetime:
    if zone is None:
        return datetime.fromtimestamp(wall).astimezone()
    import zoneinfo

    return datetime.fromtimestamp(wall, tz=zoneinfo.ZoneInfo(zone))


class SilenceFile:
    """The silences of one stack, changed under a lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "silences.json"

    def active(self, now: Moment) -> list[Silence]:
        return [item for item in self._read() if item.left(now) > 0]

    def add(self, checks: tuple[str, ...], seconds: float, reason: str, by: str, now: Moment) -> Silence:
        item = Silence(secrets.token_hex(3), checks, now, seconds, reason, by)
        self._change(lambda items: [*(old for old in items if old.left(now) > 0), item])
        return item

    def remove(self, which: str, now: Moment) -> list[Silence]:
        """End the silence with this id, or all that name exactly this check, or all of them for `all`."""
        gone: list[Silence] = []

        def keep(items: list[Silence]) -> list[Silence]:
            running = [item for item in items if item.left(now) > 0]
            gone.extend(
                item for item in running if which == "all" or which == item.id or which in item.checks
            )
            return [item for item in running if item not in gone]

        self._change(keep)
        return gone

    def _change(self, change: Callable[[list[Silence]], list[Silence]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path.with_suffix(".lock"), "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            items = change(self._read())
            write_atomically(
                self._path, json.dumps({"schema": 1, "silences": [item.dump() for item in items]})
            )

    def _read(self) -> list[Silence]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            return [Silence.load(item) for item in data["silences"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            # Better a message too many than a silence that nobody can read or end.
            aside = self._path.with_name(f"silences.broken-{int(time.time())}.json")
            self._path.replace(aside)
            return []

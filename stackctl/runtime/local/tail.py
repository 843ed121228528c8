"""Reads the logs of several local services as one stream, oldest first, and follows them when asked to."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stackctl.errors import UsageError
from stackctl.runtime.base import LogLine


def read(
    folder: Path, names: Sequence[str], *, tail: int | None, since: str | None, follow: bool
) -> Iterator[LogLine]:
    start = parse_since(since)
    places: dict[str, int] = {}
    found: list[list[LogLine]] = []
    for name in names:
        lines, places[name] = _whole(folder, name)
        wanted = [line for line in lines if start is None or (line.at is not None and line.at >= start)]
        found.append(wanted[-tail:] if tail else ([] if tail == 0 else wanted))
    epoch = datetime.fromtimestamp(0, UTC)
    yield from heapq.merge(*found, key=lambda line: line.at or epoch)
    while follow:
        fresh: list[LogLine] = []
        for name in names:
            lines, places[name] = _newer(folder, name, places[name])
            fresh += lines
        yield from sorted(fresh, key=lambda line: line.at or epoch)
        time.sleep(0.1)


def parse_since(since: str | None) -> datetime | None:
    """`10m`, `2h`, or a time as ISO 8601 writes it."""
    if since is None:
        return None
    from stackctl.config.durations import parse_duration

    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(since))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise UsageError(f"'{since}' is not a time; write it like 10m, 2h or 2026-01-31T12:00:00") from None
    return moment if moment.tzinfo else moment.astimezone()


def _whole(folder: Path, name: str) -> tuple[list[LogLine], int]:
    text = b""
    older = sorted(folder.glob(f"{name}.log.[1-9]"), reverse=True)
    for path in older:
        text += path.read_bytes()
    current = folder / f"{name}.log"
    last = current.read_bytes() if current.exists() else b""
    return _parse(name, text + last), len(last)


def _newer(folder: Path, name: str, place: int) -> tuple[list[LogLine], int]:
    path = folder / f"{name}.log"
    if not path.exists():
        return [], 0
    if path.stat().st_size < place:
        place = 0  # rotated
    with path.open("rb") as file:
        file.seek(place)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return _parse(name, whole), place + len(whole)


def _parse(name: str, text: bytes) -> list[LogLine]:
    lines = []
    for raw in text.decode("utf-8", "replace").splitlines():
        stamp, _, rest = raw.partition(" ")
        try:
            lines.append(LogLine(name, rest, datetime.fromisoformat(stamp)))
        except ValueError:
            lines.append(LogLine(name, raw))
    return lines

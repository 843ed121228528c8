"""Reads the logs of several local services as one stream, oldest first, and follows them when asked to."""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from stackctl.errors import UsageError
from stackctl.runtime.base import LogLine

_BLOCK = 1 << 16
_EPOCH = datetime.fromtimestamp(0, UTC)


def read(
    folder: Path, names: Sequence[str], *, tail: int | None, since: str | None, follow: bool
) -> Iterator[LogLine]:
    """Read as they are asked for: five files of 20 MB each need not fit into memory, for each service."""
    start = parse_since(since)
    with contextlib.ExitStack() as exits:
        places: dict[str, int] = {}
        found: list[Iterator[LogLine]] = []
        for name in names:
            # Opened before anything is read: a rotation in between moves the names, and not the open files.
            files = [exits.enter_context(path.open("rb")) for path in _files(folder, name)]
            places[name] = _seek_tail(files, tail)
            found.append(_wanted(name, files, start, places[name]))
        yield from heapq.merge(*found, key=lambda line: line.at or _EPOCH)
    while follow:
        fresh: list[LogLine] = []
        for name in names:
            lines, places[name] = _newer(folder, name, places[name])
            fresh += lines
        yield from sorted(fresh, key=lambda line: line.at or _EPOCH)
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
        raise UsageError(
            f"'{since}' is not a time; write it like 10m, 2h or 2026-01-31T12:00:00",
            fix="stackctl logs --since 10m",
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


def _files(folder: Path, name: str) -> list[Path]:
    """Oldest first."""
    older = sorted(folder.glob(f"{name}.log.[1-9]"), reverse=True)
    current = folder / f"{name}.log"
    return [*older, *([current] if current.exists() else [])]


def _seek_tail(files: Sequence[BinaryIO], tail: int | None) -> int:
    """Place the files at the last `tail` lines; returns where the newest ends."""
    end = files[-1].seek(0, os.SEEK_END) if files else 0
    missing = tail
    for file in reversed(files):
        if missing is None:
            file.seek(0)
        else:
            missing -= _seek_lines(file, missing)
    return end


def _seek_lines(file: BinaryIO, wanted: int) -> int:
    """Place the file at its last `wanted` lines, read from its end; returns how many they are."""
    place = file.seek(0, os.SEEK_END)
    if wanted == 0:
        return 0
    found = 0
    last = True  # the end of the last line is not the begin of another
    while place:
        size = min(_BLOCK, place)
        file.seek(place - size)
        block = file.read(size)
        at = len(block) - 1 if last and block.endswith(b"\n") else len(block)
        last = False
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == wanted:
                file.seek(place - size + at + 1)
                return found
        place -= size
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    return found + 1 if end else 0


def _wanted(name: str, files: Sequence[BinaryIO], start: datetime | None, end: int) -> Iterator[LogLine]:
    """Up to where the newest ended when it was opened: what comes later is for those who follow."""
    for file in files:
        left = max(0, end - file.tell()) if file is files[-1] else -1
        while left and (raw := file.readline(left)):
            left -= len(raw) if left > 0 else 0
            line = _line(name, raw.decode("utf-8", "replace").rstrip("\r\n"))
            if start is None or (line.at is not None and line.at >= start):
                yield line


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
    lines = whole.decode("utf-8", "replace").splitlines()
    return [_line(name, line) for line in lines], place + len(whole)


def _line(name: str, text: str) -> LogLine:
    stamp, _, rest = text.partition(" ")
    try:
        return LogLine(name, rest, datetime.fromisoformat(stamp))
    except ValueError:
        return LogLine(name, text)

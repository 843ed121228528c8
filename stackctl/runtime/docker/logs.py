"""The logs of several containers as one stream: merged by time, or as they come when followed."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from stackctl.runtime.base import LogLine
from stackctl.runtime.docker import inspecting
from stackctl.runtime.local.tail import parse_since

_EPOCH = datetime.fromtimestamp(0, UTC)


def read_logs(
    containers: Sequence[tuple[str, Any]], *, tail: int | None, since: str | None, follow: bool
) -> Iterator[LogLine]:
    start = parse_since(since)
    options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": True}
    if start is not None:
        options["since"] = start.timestamp()
    options["tail"] = "all" if tail is None else tail
    if follow:
        yield from _followed(containers, options)
        return
    streams = [_lines(name, one.logs(stream=False, **options)) for name, one in containers]
    yield from heapq.merge(*streams, key=lambda line: line.at or _EPOCH)


def _followed(containers: Sequence[tuple[str, Any]], options: dict[str, Any]) -> Iterator[LogLine]:
    lines: queue.Queue[LogLine | None] = queue.Queue(maxsize=10_000)

    def pump(name: str, container: Any) -> None:
        rest = b""
        try:
            for chunk in container.logs(stream=True, follow=True, **options):
                *whole, rest = (rest + chunk).split(b"\n")
                for raw in whole:
                    lines.put(_line(name, raw))
        finally:
            lines.put(None)

    for name, container in containers:
        threading.Thread(target=pump, args=(name, container), daemon=True).start()
    open_streams = len(containers)
    while open_streams:
        line = lines.get()
        if line is None:
            open_streams -= 1
        else:
            yield line


def _lines(name: str, text: bytes) -> list[LogLine]:
    return sorted((_line(name, raw) for raw in text.splitlines()), key=lambda line: line.at or _EPOCH)


def _line(name: str, raw: bytes) -> LogLine:
    stamp, _, rest = raw.decode("utf-8", "replace").partition(" ")
    try:
        return LogLine(name, rest.rstrip("\r"), inspecting.timestamp(stamp))
    except ValueError:
        return LogLine(name, f"{stamp} {rest}")

"""The logs of several containers as one stream: merged by time, or as they come when followed."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from stackctl.errors import StackctlError
from stackctl.runtime.base import LogLine
from stackctl.runtime.docker import inspecting
from stackctl.runtime.local.tail import parse_since

_EPOCH = datetime.fromtimestamp(0, UTC)


def read_logs(
    containers: Sequence[tuple[str, Any]], *, tail: int | None, since: str | None, follow: bool
) -> Iterator[LogLine]:
    """Read as they are asked for: a log of days need not fit into memory."""
    start = parse_since(since)
    options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": True, "stream": True}
    if start is not None:
        options["since"] = start.timestamp()
    options["tail"] = "all" if tail is None else tail
    if follow:
        yield from _followed(containers, options)
        return
    streams = [_lines(name, one, follow=False, **options) for name, one in containers]
    yield from heapq.merge(*streams, key=lambda line: line.at or _EPOCH)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """An engine that refuses, stalls or goes away while it is asked is an error of ours."""
    import docker
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        fix = "stackctl doctor --only docker"
        raise StackctlError(f"the Docker Engine stopped answering: {error}", fix=fix) from error


def _followed(containers: Sequence[tuple[str, Any]], options: dict[str, Any]) -> Iterator[LogLine]:
    lines: queue.Queue[LogLine | StackctlError | None] = queue.Queue(maxsize=10_000)

    def pump(name: str, container: Any) -> None:
        try:
            for line in _lines(name, container, follow=True, **options):
                lines.put(line)
            lines.put(None)
        except StackctlError as error:
            lines.put(error)

    for name, container in containers:
        threading.Thread(target=pump, args=(name, container), daemon=True).start()
    open_streams = len(containers)
    while open_streams:
        line = lines.get()
        if isinstance(line, StackctlError):
            raise line
        if line is None:
            open_streams -= 1
        else:
            yield line


def _lines(name: str, container: Any, **options: Any) -> Iterator[LogLine]:
    rest = b""
    with answering():
        for chunk in container.logs(**options):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                yield _line(name, raw)
    if rest:
        yield _line(name, rest)


def _line(name: str, raw: bytes) -> LogLine:
    stamp, _, rest = raw.decode("utf-8", "replace").partition(" ")
    try:
        return LogLine(name, rest.rstrip("\r"), inspecting.timestamp(stamp))
    except ValueError:
        return LogLine(name, f"{stamp} {rest}")

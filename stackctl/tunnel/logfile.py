"""The log of a tunnel: written by its process, begun anew when it is long, and read by whoever asks."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from stackctl.tunnel import state

LONGEST, KEPT = 1_000_000, 2
POLL = 0.3


def path(tunnel: str) -> Path:
    return state.folder(tunnel) / "log"


def handler(tunnel: str) -> RotatingFileHandler:
    file = path(tunnel)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return RotatingFileHandler(file, maxBytes=LONGEST, backupCount=KEPT)


def read(file: Path, lines: int, *, follow: bool) -> Iterator[str]:
    """The last lines, and then each that comes, also in the file that takes this one's place."""
    log = open(file, errors="replace")  # noqa: SIM115 - another takes its place below
    try:
        yield from deque(log, maxlen=lines)
        while follow:
            replaced = _is_another(file, log.fileno())  # asked first: what was written before it comes, too
            if text := log.read():
                yield text
            elif replaced:
                log.close()
                log = open(file, errors="replace")  # noqa: SIM115
            else:
                time.sleep(POLL)
    finally:
        log.close()


def _is_another(file: Path, descriptor: int) -> bool:
    try:
        return file.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False  # between two names

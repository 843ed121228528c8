"""What a run says on one of its streams: a file that grows at its end and, past a limit, is emptied from its
beginning.

A place in the stream stays the same number whatever was emptied before it, so readers need not know; the
room of what was emptied goes back to the disk (a hole in the file). Where a file system has no holes, all is
kept. The run itself writes to the file and waits for nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import BinaryIO

#: The newest part of a stream that is kept for readers, and how much more may gather before it is cut.
KEEP = 64 << 20
SLACK = 16 << 20
LOOK_EVERY = 0.5
_BLOCK = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Behind(Exception):
    """What was to be read next has been emptied meanwhile."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place  # the first that is still there


def first_place(path: Path) -> int:
    """How much of the stream has been emptied."""
    try:
        return int(path.with_suffix(".start").read_text())
    except (OSError, ValueError):
        return 0


def trim(path: Path) -> bool:
    """Empty the beginning when there is too much; False where that cannot be done."""
    try:
        size, start = path.stat().st_size, first_place(path)
        if size - start <= KEEP + SLACK:
            return True
        start = (size - KEEP) // _BLOCK * _BLOCK
        temporary = path.with_suffix(".start-new")
        temporary.write_text("?")
        _punch(temporary, 1)  # whether this file system can, tried where nothing can be lost
        # Written down first: whoever reads a hole finds afterwards that it is one.
        temporary.write_text(str(start))
        temporary.replace(path.with_suffix(".start"))
        _punch(path, start)
    except (OSError, AttributeError):
        return False
    return True


def _punch(path: Path, size: int) -> None:
    fallocate = _libc.fallocate  # Linux alone has it
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, size):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def keep_short(paths: list[Path]) -> None:
    """In a thread of its own for as long as the process lives."""

    def run() -> None:
        never = threading.Event()
        waiting = paths
        while waiting:
            never.wait(LOOK_EVERY)
            waiting = [path for path in waiting if trim(path)]

    threading.Thread(target=run, name="trim", daemon=True).start()


class Reader:
    """Copies a stream from a place on."""

    def __init__(self, path: Path, place: int) -> None:
        self._path, self.place = path, place
        self._descriptor = os.open(path, os.O_RDONLY)

    def copy(self, target: BinaryIO) -> int:
        """All there is now; how much that was. Raises Behind."""
        moved = 0
        while data := os.pread(self._descriptor, 65536, self.place):
            start = first_place(self._path)
            if start > self.place:
                raise Behind(start)
            target.write(data)
            self.place += len(data)
            moved += len(data)
        if moved:
            target.flush()
        return moved

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

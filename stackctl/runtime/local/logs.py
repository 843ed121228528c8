"""A service's log: one line each with its time, rotated at 20 MB, five files at most.

Writing never fails and never waits: a full disk costs lines, not the service, whose pipe would fill up if
nobody read it. How many lines are missing is said where they are missing, as soon as there is room again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from datetime import UTC, datetime
from pathlib import Path

SIZE, FILES = 20 * 1024 * 1024, 5


class RotatingLog:
    def __init__(self, path: Path, *, size: int = SIZE) -> None:
        self.path = path
        self.dropped = 0
        self._why = ""
        self._limit = size
        self._torn = False
        self._file: io.FileIO | None = None

    def write(self, line: str) -> None:
        try:
            if self.dropped:
                self._append(f"stackctl: {self.dropped} lines were dropped here: {self._why}")
                self.dropped = 0
            self._append(line)
        except OSError as error:
            self.dropped += 1
            self._why = error.strerror or str(error)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _append(self, line: str) -> None:
        file = self._opened()
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        raw = ("\n" if self._torn else "").encode() + f"{stamp} {line}\n".encode()
        start = os.fstat(file.fileno()).st_size
        written = file.write(raw) or 0
        if written < len(raw):
            # The disk filled up in the middle of it: half a line is worse than none.
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), start)
            self._torn = os.fstat(file.fileno()).st_size != start
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        if start + written > self._limit:
            self._rotate()

    def _opened(self) -> io.FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = io.FileIO(self.path, "a")
        return self._file

    def _rotate(self) -> None:
        """The oldest goes even where nothing can be renamed: the log must not outgrow its bound."""
        self.close()
        try:
            for number in range(FILES - 1, 0, -1):
                source = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
                if source.exists():
                    source.replace(self.path.with_name(f"{self.path.name}.{number}"))
        except OSError:
            os.truncate(self.path, 0)

"""A service's log: one line each with its time, rotated at 20 MB, five files at most."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

SIZE, FILES = 20 * 1024 * 1024, 5


class RotatingLog:
    def __init__(self, path: Path, *, size: int = SIZE) -> None:
        self.path = path
        self._limit = size
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(f"{stamp} {line}\n".encode())
        if self._file.tell() > self._limit:
            self._rotate()

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(FILES - 1, 0, -1):
            source = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if source.exists():
                source.replace(self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self.path.open("ab", buffering=0)

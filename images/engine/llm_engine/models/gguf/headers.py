"""Headers that were read are kept, the latest used ones and by the memory that they take.

A header is read once per file; the key notices a file that was replaced."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from llm_engine.models.gguf.file import GGUFFile

Key = tuple[Path, int, int]


class Headers:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, GGUFFile] = OrderedDict()
        self._lock = Lock()

    @property
    def footprint(self) -> int:
        with self._lock:
            return sum(header.footprint for header in self._kept.values())

    def read(self, path: Path) -> GGUFFile:
        """FileNotFoundError or InvalidGGUF where there is no header to be read."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        header = GGUFFile.open(path)
        with self._lock:
            self._kept[key] = header
            taken = sum(kept.footprint for kept in self._kept.values())
            while taken > self._limit and len(self._kept) > 1:
                taken -= self._kept.popitem(last=False)[1].footprint
        return header


_headers = Headers(64 << 20)


def read_gguf(path: Path) -> GGUFFile:
    return _headers.read(path)

"""A download in progress: the sparse file, which of its bytes are there, and the digest as far as it is
known.

What has been written is recorded right after it was written, so a killed process loses at most one flush per
connection. A machine that loses its power loses what was not yet on the disk, whatever the record says; so
the record also names the boot that it was written in and, apart, what had reached the disk. After another
boot only that counts. The record is one line of JSON that is overwritten in place: it is never read half old
and half new, for a reader takes the first line only. The digest is computed behind the writers from the page
cache, so there is no second pass at the end. One process at a time works on a partial file; a lock says
so."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from llm_engine.models.blobs import BlobStore
from llm_engine.models.digests import Digest
from llm_engine.models.disk import store_full
from llm_engine.models.errors import StoreFull

HASH_CHUNK = 4 * 1024 * 1024
SYNC_EVERY = 256 * 1024 * 1024
RESERVE = 16 * 1024 * 1024
BOOT = Path("/proc/sys/kernel/random/boot_id")
T = TypeVar("T")


def _boot() -> str:
    """Which start of the machine this is: what was written since then is in memory, if not on the disk."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


class Busy(Exception):
    """Another process is downloading this blob."""


class Ranges:
    """Which bytes are there: disjoint, sorted, joined where they touch.

    One thread adds while others look. `add` puts a new list in the place of the old one and never changes a
    list, so whoever takes the list once sees one state of it.
    """

    def __init__(self, spans: list[tuple[int, int]] | None = None) -> None:
        self.spans: list[tuple[int, int]] = []
        for start, end in spans or []:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        if end <= start:
            return
        joined = []
        for low, high in self.spans:
            if high < start or low > end:
                joined.append((low, high))
            else:
                start, end = min(start, low), max(end, high)
        self.spans = sorted([*joined, (start, end)])

    @property
    def total(self) -> int:
        return sum(end - start for start, end in self.spans)

    @property
    def prefix(self) -> int:
        """How many bytes are there from the start without a gap."""
        spans = self.spans
        return spans[0][1] if spans and spans[0][0] == 0 else 0

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """What is not there of a stretch."""
        found = ((max(low, start), min(high, end)) for low, high in self.gaps(end))
        return [(low, high) for low, high in found if low < high]

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """What is not there of so many bytes from the start."""
        found, at = [], 0
        for start, end in self.spans:
            if start >= size:
                break
            if start > at:
                found.append((at, start))
            at = end
        return [*found, (at, size)] if at < size else found


class Partial:
    """Use `open`; then `write` in any order, `finish` once everything is there, and `close` in any case."""

    def __init__(self, blobs: BlobStore, digest: Digest, size: int) -> None:
        self.blobs = blobs
        self.digest = digest
        self.size = size
        self.path = blobs.root / f"{digest.file_name}-partial"
        self.record_path = blobs.root / f"{digest.file_name}.resume"
        self.ranges = Ranges()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._synced = 0
        self._durable: list[tuple[int, int]] = []
        self._boot = _boot()
        self._noting = threading.Lock()
        self._file = -1
        self._record = -1
        # One thread writes, one hashes: neither the event loop nor the other waits for it.
        self._writing = ThreadPoolExecutor(1, f"write-{digest.short}")
        self._hashing = ThreadPoolExecutor(1, f"hash-{digest.short}")

    def open(self) -> None:
        """Busy when another process has it; StoreFull when the rest cannot fit on the disk."""
        self._lock()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._file).st_size == self.size:
            self.ranges = Ranges(self._known())
        missing = self.size - self.ranges.total
        space = os.statvfs(self.blobs.root)
        if space.f_bavail * space.f_frsize < missing + RESERVE:
            raise StoreFull(str(self.blobs.root), missing)
        os.ftruncate(self._file, self.size)
        self._note()

    def _lock(self) -> None:
        self.blobs.root.mkdir(parents=True, exist_ok=True)
        while True:
            self._record = os.open(self.record_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._record)
                self._record = -1
                raise Busy from None
            if os.fstat(self._record).st_nlink:  # else: finished and removed while we opened it
                break
            os.close(self._record)

    def _known(self) -> list[tuple[int, int]]:
        """What our own record says, as far as it can be relied on; without one, what Ollama's part files
        say."""
        raw = os.pread(self._record, 1 << 20, 0)
        with contextlib.suppress(ValueError, TypeError, KeyError):
            document = json.loads(raw.split(b"\n", 1)[0])
            if document["size"] == self.size:
                durable = self._spans(document.get("durable", []))
                done = self._spans(document["done"])
                self._durable = durable
                return done if document.get("boot", self._boot) == self._boot else durable
        spans = []
        for path in self.part_files():
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                part = json.loads(path.read_text())
                spans.append(self._span(int(part["Offset"]), int(part["Offset"]) + int(part["Completed"])))
        return spans

    def _spans(self, pairs: Any) -> list[tuple[int, int]]:
        return [self._span(int(start), int(end)) for start, end in pairs]

    def _span(self, start: int, end: int) -> tuple[int, int]:
        if not 0 <= start <= end <= self.size:
            raise ValueError("a span outside of the file")
        return start, end

    def part_files(self) -> list[Path]:
        """Ollama's own records of this download."""
        return sorted(self.blobs.root.glob(f"{self.path.name}-*"))

    def _note(self) -> None:
        with self._noting:
            document = {
                "size": self.size,
                "boot": self._boot,
                "done": self.ranges.spans,
                "durable": self._durable,
            }
            os.pwrite(self._record, json.dumps(document).encode() + b"\n", 0)

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    async def write(self, offset: int, data: bytes | bytearray) -> None:
        await self._in(self._writing, self._write, offset, data)

    def _write(self, offset: int, data: bytes | bytearray) -> None:
        with store_full(self.blobs.root, self.size - self.ranges.total):
            view = memoryview(data)
            at = offset
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
            self.ranges.add(offset, at)
            self._note()

    async def hash_on(self) -> int:
        """Takes the digest further as far as the bytes are there without a gap; gives how far that is."""
        return await self._in(self._hashing, self._hash_on)

    def _hash_on(self) -> int:
        until = self.ranges.prefix
        while self._hashed < until:
            chunk = os.pread(self._file, min(HASH_CHUNK, until - self._hashed), self._hashed)
            if not chunk:
                break
            self._hash.update(chunk)
            self._hashed += len(chunk)
        if self._hashed - self._synced >= SYNC_EVERY:
            # Little by little, so that the last sync before the rename is short.
            self._synced = self._hashed
            self._sync()
        return self._hashed

    def _sync(self) -> None:
        there = self.ranges.spans
        os.fdatasync(self._file)
        self._durable = there
        self._note()
        os.fdatasync(self._record)

    async def finish(self) -> Digest:
        """The digest of the whole; if it is the right one the blob has its name now, else nothing is left."""
        await self.hash_on()
        found = Digest(self._hash.hexdigest())
        await self._in(self._writing, self._adopt if found == self.digest else self._discard)
        return found

    def _adopt(self) -> None:
        with store_full(self.blobs.root):
            os.fdatasync(self._file)
            self.blobs.adopt(self.path, self.digest)
        self._forget_files()

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._forget_files()

    def abandon(self) -> bool:
        """Removes what is there of a download, unless someone is at work on it; tells whether it did."""
        try:
            self._lock()
        except Busy:
            return False
        self._discard()
        return True

    def _forget_files(self) -> None:
        for path in self.part_files():
            path.unlink(missing_ok=True)
        self.record_path.unlink(missing_ok=True)

    def close(self) -> None:
        self._writing.shutdown(wait=True)
        self._hashing.shutdown(wait=True)
        for handle in (self._file, self._record):
            if handle >= 0:
                os.close(handle)
        self._file = self._record = -1

"""Keeps a blob that someone relies on from being removed, also between processes.

Whoever is about to mention a blob in a manifest holds a shared lock on the blob's lease file until the
manifest is written. Whoever removes blobs takes exclusive locks first and looks for mentions afterwards. So a
blob is either seen as mentioned, or cannot be locked, or is really unused. Locks die with their process: no
stale state."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from llm_engine.models.digests import Digest

# A client uploads the shards of a large model one after the other, and asks for the model at the end.
PROMISE_SECONDS = 3600.0


class Leases:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def hold(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Waits for a removal that is under way, then keeps these blobs from being removed."""
        with contextlib.ExitStack() as stack:
            # A fixed order: two holders cannot wait for each other through a remover.
            for digest in sorted(set(digests)):
                handle = self._lock(digest, fcntl.LOCK_SH)
                assert handle is not None
                stack.callback(os.close, handle)
            yield

    @contextlib.contextmanager
    def claim(self, digests: Iterable[Digest]) -> Iterator[list[Digest]]:
        """Gives those of `digests` that nobody holds, locked against new holders."""
        free: list[Digest] = []
        handles: list[int] = []
        try:
            for digest in sorted(set(digests)):
                handle = self._lock(digest, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if handle is not None:
                    handles.append(handle)
                    free.append(digest)
            yield free
        finally:
            for digest, handle in zip(free, handles, strict=True):
                with contextlib.suppress(OSError):
                    os.unlink(self.folder / digest.hex)
                os.close(handle)

    def _lock(self, digest: Digest, how: int) -> int | None:
        path = self.folder / digest.hex
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, how)
            except BlockingIOError:
                os.close(handle)
                return None
            # The file may have been unlinked by a remover while we waited: such a lock protects nothing.
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)


class Promised:
    """Blobs that a client was told are there, and will mention soon: kept for it until then, or for a while.

    Between the upload of a blob and the request to make a model of it, no manifest speaks of it."""

    def __init__(self, leases: Leases, seconds: float = PROMISE_SECONDS) -> None:
        self.leases = leases
        self.seconds = seconds
        self._lock = threading.Lock()
        self._kept: dict[Digest, tuple[float, contextlib.ExitStack]] = {}

    def keep(self, digest: Digest) -> None:
        stack = contextlib.ExitStack()
        stack.enter_context(self.leases.hold([digest]))
        with self._lock:
            _, older = self._kept.pop(digest, (0.0, contextlib.ExitStack()))
            self._kept[digest] = (time.monotonic() + self.seconds, stack)
        older.close()
        self.expire()

    def release(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            stacks = [self._kept.pop(digest)[1] for digest in set(digests) if digest in self._kept]
        for stack in stacks:
            stack.close()

    def expire(self) -> None:
        now = time.monotonic()
        with self._lock:
            over = [digest for digest, (until, _) in self._kept.items() if until <= now]
        self.release(over)

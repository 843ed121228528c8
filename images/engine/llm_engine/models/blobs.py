"""The `blobs` folder: each file is named by the digest of its bytes and is never changed once it has that
name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from llm_engine.models.digests import Digest
from llm_engine.models.disk import store_full, sync_directory
from llm_engine.models.errors import BlobMissing, DigestMismatch

_NAME = re.compile(r"sha256-[0-9a-f]{64}")
COPY_CHUNK = 4 * 1024 * 1024


class BlobStore:
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: Digest) -> Path:
        return self.root / digest.file_name

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there and, where its size is known, complete."""
        try:
            stat = self.path(digest).stat()
        except FileNotFoundError:
            return False
        return size is None or stat.st_size == size

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob's bytes: templates, parameters; more than `limit` bytes are refused."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise BlobMissing(str(digest)) from None
        if len(data) > limit:
            raise BlobMissing(f"{digest} (larger than the {limit} bytes that such a layer may have)")
        return data

    def digests(self) -> Iterator[Digest]:
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return
        for name in names:
            if _NAME.fullmatch(name):
                yield Digest(name[7:])

    def add(self, data: bytes) -> tuple[Digest, bool]:
        """Stores bytes; the flag tells whether they are new."""
        digest = Digest.of(data)
        if self.has(digest, len(data)):
            self.touch(digest)
            return digest, False
        with self.writer() as writer:
            writer.write(data)
            writer.commit()
        return digest, True

    def add_file(self, source: Path, before: Callable[[Digest], object] | None = None) -> tuple[Digest, int]:
        """Stores a copy of a file; `before` hears its digest before the blob has its name."""
        with self.writer() as writer, source.open("rb") as file:
            while chunk := file.read(COPY_CHUNK):
                writer.write(chunk)
            if before is not None:
                before(writer.digest)
            return writer.commit(), writer.size

    def writer(self) -> BlobWriter:
        with store_full(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            return BlobWriter(self)

    def touch(self, digest: Digest) -> None:
        """Young blobs are spared by a clean-up at start, Ollama's as well as ours."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest))

    def adopt(self, temporary: Path, digest: Digest) -> None:
        """Gives a complete, synced file its name."""
        os.chmod(temporary, 0o644)
        os.replace(temporary, self.path(digest))
        sync_directory(self.root)

    def remove(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    def verify(self, digest: Digest) -> bool:
        """Reads the whole blob and compares."""
        with self.path(digest).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest.hex


class BlobWriter:
    """Hashes while it writes to a temporary file; nothing is left behind unless `commit` was reached."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.size = 0
        self._hash = hashlib.sha256()
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=store.root)
        self._file = os.fdopen(handle, "wb")
        self.path = Path(name)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        with store_full(self.store.root):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())

    def commit(self, expected: Digest | None = None) -> Digest:
        """The blob gets its name; DigestMismatch, and nothing stored, when it is not the expected one."""
        digest = self.digest
        if expected is not None and digest != expected:
            raise DigestMismatch(str(expected), str(digest))
        with store_full(self.store.root):
            self._file.flush()
            os.fsync(self._file.fileno())
            self.store.adopt(self.path, digest)
        return digest

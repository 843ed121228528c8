"""A model as one tar file, for hosts without a network.

The tar holds the store's own layout (the manifest and the blobs it mentions), so it can also be unpacked over
a store with plain `tar`. Reading checks each blob against its name and accepts nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tarfile
from pathlib import PurePosixPath
from typing import IO

from llm_engine.models.blobs import COPY_CHUNK
from llm_engine.models.digests import Digest
from llm_engine.models.errors import DigestMismatch, InvalidName, ModelsError
from llm_engine.models.manifests import MAX_MANIFEST, Manifest
from llm_engine.models.model import Model
from llm_engine.models.names import Name
from llm_engine.models.store import ModelStore

_BLOB = re.compile(r"blobs/sha256-([0-9a-f]{64})")


class InvalidBundle(ModelsError):
    status = 400


def export(model: Model, out: IO[bytes]) -> int:
    """Writes the model to a stream; gives the number of bytes of its blobs."""
    model.check_whole()
    written = 0
    # The manifest comes first: a reader knows what to expect, and refuses early.
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        head = tarfile.TarInfo(f"manifests/{model.name.path}")
        head.size, head.mtime, head.mode = len(model.manifest.raw), int(model.modified_at.timestamp()), 0o644
        tar.addfile(head, io.BytesIO(model.manifest.raw))
        for digest in dict.fromkeys(layer.digest for layer in model.manifest.everything):
            path = model.blobs.path(digest)
            with path.open("rb") as file:
                entry = tarfile.TarInfo(f"blobs/{digest.file_name}")
                entry.size, entry.mtime, entry.mode = path.stat().st_size, head.mtime, 0o644
                tar.addfile(entry, file)
                written += entry.size
    return written


def load(store: ModelStore, source: IO[bytes]) -> list[Model]:
    """Stores the models of a bundle; InvalidBundle or DigestMismatch leave the names as they were."""
    found: list[tuple[Name, Manifest]] = []
    expected: set[Digest] = set()
    with contextlib.ExitStack() as held:
        try:
            with tarfile.open(fileobj=source, mode="r|") as tar:
                for entry in tar:
                    if not entry.isfile():
                        continue
                    file = tar.extractfile(entry)
                    assert file is not None
                    if match := _BLOB.fullmatch(entry.name):
                        _blob(store, Digest(match[1]), expected, entry, file)
                    else:
                        name, manifest = _manifest(entry, file)
                        found.append((name, manifest))
                        digests = {layer.digest for layer in manifest.everything}
                        # Until the names are there, nobody else knows that these are wanted.
                        held.enter_context(store.keeping(digests))
                        expected |= digests
        except (tarfile.TarError, EOFError) as error:
            raise InvalidBundle(f"the file is no bundle of a model, or it is cut off: {error}") from None
        if not found:
            raise InvalidBundle("the file holds no manifest of a model")
        return [store.put(name, manifest) for name, manifest in found]


def _manifest(entry: tarfile.TarInfo, file: IO[bytes]) -> tuple[Name, Manifest]:
    path = PurePosixPath(entry.name)
    try:
        name = Name.from_path(path.relative_to("manifests"))
    except (ValueError, InvalidName):
        raise InvalidBundle(f"{entry.name[:200]!r} has no place in a bundle") from None
    if entry.size > MAX_MANIFEST:
        raise InvalidBundle(f"the manifest of {name} is larger than {MAX_MANIFEST} bytes")
    return name, Manifest.parse(file.read(), name.short)


def _blob(
    store: ModelStore, digest: Digest, expected: set[Digest], entry: tarfile.TarInfo, file: IO[bytes]
) -> None:
    if digest not in expected:
        raise InvalidBundle(f"{entry.name} belongs to no manifest before it")
    if store.blobs.has(digest, entry.size) and store.blobs.verify(digest):
        _compare(digest, file)
        store.blobs.touch(digest)
        return
    with store.blobs.writer() as writer:
        while chunk := file.read(COPY_CHUNK):
            writer.write(chunk)
        writer.commit(digest)


def _compare(digest: Digest, file: IO[bytes]) -> None:
    """A bundle is checked whole, also where the store needs nothing of it."""
    found = hashlib.sha256()
    while chunk := file.read(COPY_CHUNK):
        found.update(chunk)
    if found.hexdigest() != digest.hex:
        raise DigestMismatch(str(digest), str(Digest(found.hexdigest())))

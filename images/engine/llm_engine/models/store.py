"""The model store: Ollama's directory, read and written so that either program can use what the other made.

Guarantees: a name appears only when all of its blobs are there; a blob that a manifest mentions, or that
someone is about to mention, is never removed; one broken model hides no other."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from llm_engine.models.blobs import BlobStore
from llm_engine.models.digests import Digest
from llm_engine.models.errors import BlobMissing, CorruptManifest, ModelNotFound, PinMismatch
from llm_engine.models.leases import Leases, Promised
from llm_engine.models.manifests import Manifest, ManifestStore
from llm_engine.models.model import Model
from llm_engine.models.names import Name

log = logging.getLogger("llm_engine.models")

# What is younger may belong to an upload or a download of another program on this directory.
SPARE_YOUNGER_THAN = 3600.0

__all__ = ["Model", "ModelStore"]


class ModelStore:
    def __init__(self, root: Path, *, prune: bool = True) -> None:
        self.root = root
        self.prunes = prune
        """False where the operator forbade it (OLLAMA_NOPRUNE)."""
        self.blobs = BlobStore(root / "blobs")
        self.manifests = ManifestStore(root / "manifests")
        self.leases = Leases(root / ".leases")
        self.promised = Promised(self.leases)
        self.on_change: Callable[[Name], None] = lambda name: None
        """Told of each name that has been given to another manifest, or to none; from whatever thread."""

    # -- reading -------------------------------------------------------------------------------------------

    def list(self) -> list[Model]:
        """Every whole model, the newest first; unreadable and truncated ones are logged and left out."""
        models = []
        for name in self.manifests.names():
            try:
                model = self._load(name)
                model.config  # noqa: B018 - a model whose configuration cannot be read is not listed
                model.check_whole()
            except (CorruptManifest, BlobMissing) as error:
                log.warning("model left out", extra={"data": {"model": name.short, "why": str(error)}})
            except ModelNotFound:
                continue  # removed while we were listing
            else:
                models.append(model)
        return sorted(models, key=lambda model: (-int(model.modified_at.timestamp()), model.short_name))

    def resolve(self, name: str | Name) -> Model:
        """The model of this name. InvalidName, ModelNotFound or CorruptManifest."""
        wanted = Name.parse(name) if isinstance(name, str) else name
        stored = self.manifests.find(wanted)
        if stored is None:
            raise ModelNotFound(wanted.short)
        model = self._load(stored)
        if wanted.pin and wanted.pin != f"sha256:{model.digest}":
            raise ModelNotFound(f"{wanted.short}@{wanted.pin}")
        return model

    @contextlib.contextmanager
    def holding(self, name: str | Name) -> Iterator[Model]:
        """`resolve`, and nothing that the model consists of can be removed meanwhile."""
        while True:
            model = self.resolve(name)
            with self.keeping(layer.digest for layer in model.manifest.everything):
                # Removed, or replaced, between the look and the hold: what was found may be gone.
                if self.resolve(name).digest == model.digest:
                    yield model
                    return

    def _load(self, name: Name) -> Model:
        manifest, stat = self.manifests.read(name)
        modified = datetime.fromtimestamp(stat.st_mtime).astimezone()
        return Model(name, manifest, modified, self.blobs)

    def has_whole(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, and of the size that is known: from the caller, or from a manifest."""
        if not self.blobs.has(digest, size):
            return False
        sizes = set[int]()
        for name in self.manifests.names():
            with contextlib.suppress(ModelNotFound, CorruptManifest):
                layers = self.manifests.read(name)[0].everything
                sizes |= {layer.size for layer in layers if layer.digest == digest}
        return not sizes or any(self.blobs.has(digest, known) for known in sizes)

    # -- writing -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def keeping(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Blobs that are about to be mentioned; they cannot be removed meanwhile."""
        with self.leases.hold(digests):
            yield

    def put(self, name: Name, manifest: Manifest) -> Model:
        """`replace`, and what only the replaced manifest mentioned is removed."""
        self.remove_unused(self.replace(name, manifest))
        return self._load(self.manifests.place(name))

    def add_file(self, source: Path, held: contextlib.ExitStack) -> Digest:
        """Stores a copy of a file as a blob, which `held` keeps from being removed."""
        digest, _ = self.blobs.add_file(source, lambda digest: held.enter_context(self.keeping([digest])))
        return digest

    def replace(self, name: Name, manifest: Manifest) -> Sequence[Digest]:
        """Gives a manifest its name; BlobMissing unless everything it mentions is there, PinMismatch when
        the name asks for another manifest.

        What it gives is what the manifest had that was there before and this one has not.
        """
        if name.pin and name.pin != str(manifest.digest):
            raise PinMismatch(name.short, name.pin, str(manifest.digest))
        with self.keeping(layer.digest for layer in manifest.everything):
            for layer in manifest.everything:
                if not self.blobs.has(layer.digest, layer.size):
                    raise BlobMissing(str(layer.digest), name.short)
            target = self.manifests.place(name)
            old: set[Digest] = set()
            with contextlib.suppress(ModelNotFound, CorruptManifest):
                old = {layer.digest for layer in self.manifests.read(target)[0].everything}
            self.manifests.write(target, manifest)
        self.on_change(target)
        return sorted(old - {layer.digest for layer in manifest.everything})

    def copy(self, source: Name, destination: Name) -> None:
        with self.holding(source) as model:
            self.put(destination, model.manifest)

    def delete(self, name: Name) -> None:
        """Removes the name, and the blobs that nothing else needs; a pinned name only with this digest."""
        stored = self.manifests.find(name)
        if stored is None:
            raise ModelNotFound(name.short)
        digests: list[Digest] = []
        try:
            manifest, _ = self.manifests.read(stored)
        except CorruptManifest:
            found = ""
        else:
            found = str(manifest.digest)
            digests = [layer.digest for layer in manifest.everything]
        if name.pin and name.pin != found:
            raise ModelNotFound(f"{name.short}@{name.pin}")
        self.manifests.remove(stored)
        self.on_change(stored)
        self.remove_unused(digests)

    # -- cleaning up ---------------------------------------------------------------------------------------

    def remove_unused(self, digests: Iterable[Digest]) -> Sequence[Digest]:
        """Removes those of `digests` that no manifest mentions and nobody holds; gives what was removed."""
        if not self.prunes:
            return []
        self.promised.expire()
        with self.leases.claim(digests) as free:
            used = self.mentioned()
            if used is None:
                return []
            unused = [digest for digest in free if digest not in used]
            for digest in unused:
                self.blobs.remove(digest)
        return unused

    def mentioned(self) -> set[Digest] | None:
        """Every digest in a manifest; None when a manifest cannot be read, for then nobody knows."""
        used: set[Digest] = set()
        for name in self.manifests.names():
            try:
                manifest, _ = self.manifests.read(name)
            except ModelNotFound:
                continue
            except CorruptManifest as error:
                log.warning("nothing is removed", extra={"data": {"why": str(error)}})
                return None
            used.update(layer.digest for layer in manifest.everything)
        return used

    def clean(self, *, older_than: float = SPARE_YOUNGER_THAN) -> Sequence[str]:
        """At start: removes unused blobs and abandoned temporary files; gives the names of the removed
        files."""
        if not self.prunes or not self.blobs.root.is_dir():
            return []
        old = time.time() - older_than
        digests, strays = [], []
        for entry in os.scandir(self.blobs.root):
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_file(follow_symlinks=False) or entry.stat().st_mtime > old:
                    continue
                if entry.name.startswith("incoming-"):
                    strays.append(entry.name)
                elif entry.name.startswith("sha256-") and len(entry.name) == 71:
                    digests.append(Digest(entry.name[7:]))
        for name in strays:
            (self.blobs.root / name).unlink(missing_ok=True)
        return [*strays, *(digest.file_name for digest in self.remove_unused(digests))]

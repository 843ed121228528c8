"""Manifests: which layers make up a model, in the Docker form that registries hold and the store keeps.

The bytes are never rewritten after they were received: a model's digest is computed over them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from llm_engine.models.canonical import encode
from llm_engine.models.digests import Digest
from llm_engine.models.disk import store_full, sync_directory
from llm_engine.models.errors import CorruptManifest, InvalidDigest, InvalidName, ModelNotFound
from llm_engine.models.names import Name

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_PREFIX = "application/vnd.ollama.image."
MAX_MANIFEST = 4 * 1024 * 1024
LEVELS = 4  # host, namespace, model, tag
RENAME_TRIES = 100


@dataclass(frozen=True)
class Layer:
    media_type: str
    digest: Digest
    size: int
    origin: str = ""
    """The model that a layer was taken over from (`from` in the document)."""
    name: str = ""

    @property
    def kind(self) -> str:
        """`model`, `template` ...; the whole media type where it is not one of Ollama's."""
        return self.media_type.removeprefix(LAYER_PREFIX)

    @classmethod
    def of_kind(cls, kind: str, digest: Digest, size: int, origin: str = "") -> Layer:
        return cls(LAYER_PREFIX + kind, digest, size, origin)

    @classmethod
    def from_json(cls, value: Any) -> Layer:
        if not isinstance(value, dict):
            raise ValueError("a layer is not an object")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError("a layer has no valid size")
        digest = value.get("digest")
        if not isinstance(digest, str):
            raise ValueError("a layer has no digest")
        try:
            parsed = Digest.parse(digest)
        except InvalidDigest:
            raise ValueError(f"a layer has an invalid digest: {digest[:80]!r}") from None
        texts = {key: value.get(key, "") for key in ("mediaType", "from", "name")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("a layer's mediaType, from or name is not a text")
        return cls(texts["mediaType"], parsed, size, texts["from"], texts["name"])

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.origin:
            document["from"] = self.origin
        if self.name:
            document["name"] = self.name
        return document


@dataclass(frozen=True)
class Manifest:
    raw: bytes = field(repr=False)
    config: Layer
    layers: tuple[Layer, ...]

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Manifest:
        try:
            document = json.loads(raw)
            if not isinstance(document, dict):
                raise ValueError("not an object")
            layers = document.get("layers")
            if not isinstance(layers, list):
                raise ValueError("no list of layers")
            return cls(raw, Layer.from_json(document.get("config")), tuple(map(Layer.from_json, layers)))
        except (ValueError, RecursionError) as error:
            raise CorruptManifest(where, str(error)) from None

    @classmethod
    def make(cls, config: Layer, layers: tuple[Layer, ...]) -> Manifest:
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        return cls(encode(document), config, layers)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @property
    def size(self) -> int:
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def everything(self) -> tuple[Layer, ...]:
        """Each layer and the configuration; a store with this manifest must have all of them."""
        return (*self.layers, self.config)

    def of_kind(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind in kinds]


class ManifestStore:
    """The `manifests` folder: one file per name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> Iterator[Name]:
        """Each name with a file; files that are no manifests by their name are passed over."""
        for path in _files(self.root, LEVELS):
            with contextlib.suppress(InvalidName):
                yield Name.from_path(PurePosixPath(path.relative_to(self.root)))

    def find(self, name: Name) -> Name | None:
        """The name as it is stored: the same but for case, which may differ in each of several folders."""
        if _is_file(self._file(name)):
            return Name(name.host, name.namespace, name.model, name.tag)
        return next(_alike(self.root, name.path.parts), None)

    def place(self, name: Name) -> Name:
        """Where a manifest of this name goes: the name as it is stored, else in folders that are there."""
        if stored := self.find(name):
            return stored
        folder, parts = self.root, list[str]()
        for part in name.path.parts:
            entries = _entries(folder)
            spellings = [entry for entry in entries if entry.lower() == part.lower()]
            parts.append(part if part in entries or not spellings else spellings[0])
            folder /= parts[-1]
        return Name(*parts)

    def read(self, name: Name) -> tuple[Manifest, os.stat_result]:
        path = self._file(name)
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                raw = file.read(MAX_MANIFEST + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ModelNotFound(name.short) from None
        if len(raw) > MAX_MANIFEST:
            raise CorruptManifest(name.short, f"larger than {MAX_MANIFEST} bytes")
        return Manifest.parse(raw, name.short), stat

    def write(self, name: Name, manifest: Manifest) -> None:
        path = self._file(name)
        with store_full(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            # One level up, where nobody looks for manifests: a crash leaves no half model behind.
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.root)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(manifest.raw)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o644)
                _rename(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            with contextlib.suppress(FileNotFoundError):  # removed again by someone else
                sync_directory(path.parent)

    def remove(self, name: Name) -> None:
        path = self._file(name)
        path.unlink(missing_ok=True)
        for parent in list(path.parents)[:3]:
            try:
                parent.rmdir()
            except OSError:
                break

    def _file(self, name: Name) -> Path:
        return self.root / name.path


def _entries(folder: Path) -> list[str]:
    """In a fixed order; none where the folder has been removed, or is none."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the file system
        return False


def _files(folder: Path, levels: int) -> Iterator[Path]:
    """The files so many levels down. Others may remove files and folders meanwhile."""
    for entry in _entries(folder):
        path = folder / entry
        if levels > 1:
            yield from _files(path, levels - 1)
        elif path.is_file():
            yield path


def _alike(folder: Path, parts: Sequence[str], found: tuple[str, ...] = ()) -> Iterator[Name]:
    """The stored names that are these parts but for case."""
    for entry in _entries(folder):
        if entry.lower() != parts[0].lower():
            continue
        if len(parts) > 1:
            yield from _alike(folder / entry, parts[1:], (*found, entry))
        elif (folder / entry).is_file():
            yield Name.from_path(PurePosixPath(*found, entry))


def _rename(temporary: str, path: Path) -> None:
    """Into its folder, which whoever removes the last model in it may remove at any moment."""
    for left in reversed(range(RENAME_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
            return
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise

"""The weights of a model that is being made: which given file is what, shards joined, quantised where
asked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_engine.models.blobs import COPY_CHUNK
from llm_engine.models.digests import Digest
from llm_engine.models.disk import store_full
from llm_engine.models.errors import BlobMissing, CreateError
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.gguf.merge import merge, shard_order
from llm_engine.models.manifests import Layer
from llm_engine.models.quantize import check_target, quantize
from llm_engine.models.status import Status
from llm_engine.models.store import ModelStore

OTHER_FORMATS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Part:
    kind: str
    files: tuple[tuple[Digest, GGUFFile], ...]
    """More than one where a model comes in shards."""


def open_parts(
    store: ModelStore,
    files: Mapping[str, Digest],
    adapters: Mapping[str, Digest],
    drafts: Mapping[str, Digest],
) -> list[Part]:
    """What each file is, as its header says; the model first."""
    parts: list[Part] = []
    shards: dict[str, tuple[Digest, GGUFFile]] = {}
    for name, digest in files.items():
        gguf = _open(store, name, digest)
        if gguf.is_adapter:
            parts.append(Part("adapter", ((digest, gguf),)))
        elif gguf.is_projector:
            parts.append(Part("projector", ((digest, gguf),)))
        else:
            shards[name] = (digest, gguf)
    if shards:
        order = shard_order({name: gguf for name, (_, gguf) in shards.items()})
        parts.insert(0, Part("model", tuple(shards[name] for name in order)))
    for name, digest in adapters.items():
        gguf = _open(store, name, digest)
        if not gguf.is_adapter:
            raise CreateError(f"{name} is not an adapter: it holds {gguf.architecture or 'other'} weights")
        parts.append(Part("adapter", ((digest, gguf),)))
    parts += [Part("draft", ((digest, _open(store, name, digest)),)) for name, digest in drafts.items()]
    return parts


def _open(store: ModelStore, name: str, digest: Digest) -> GGUFFile:
    if name.endswith(OTHER_FORMATS):
        raise CreateError(
            f"{name} is not a GGUF file, and other formats are not converted here; convert the folder with "
            "llama.cpp first: python convert_hf_to_gguf.py FOLDER --outfile model.gguf"
        )
    try:
        return read_gguf(store.blobs.path(digest))
    except FileNotFoundError:
        raise BlobMissing(str(digest)) from None


def store_weights(
    store: ModelStore, part: Part, target: str, held: contextlib.ExitStack
) -> Generator[Status, None, Layer]:
    """The layer of one part, after joining and quantising; what is written is kept by `held`."""
    digest, gguf = part.files[0]
    if len(part.files) > 1:
        digest = yield from _join(store, part, held)
        gguf = read_gguf(store.blobs.path(digest))
    if target and part.kind in ("model", "draft") and gguf.file_type != check_target(target):
        digest = yield from _quantized(store, gguf, target, held)
    return Layer.of_kind(part.kind, digest, store.blobs.path(digest).stat().st_size)


def _join(store: ModelStore, part: Part, held: contextlib.ExitStack) -> Generator[Status, None, Digest]:
    size, pieces = merge([gguf for _, gguf in part.files])
    text = f"joining {len(part.files)} shards"
    with store.blobs.writer() as writer:
        reported = 0
        for piece in pieces:
            writer.write(piece)
            if writer.size - reported >= 16 * COPY_CHUNK:
                reported = writer.size
                yield Status(text, "0" * 19, size, writer.size)
        held.enter_context(store.keeping([writer.digest]))
        yield Status(text, "0" * 19, size, size)
        return writer.commit()


def _quantized(
    store: ModelStore, gguf: GGUFFile, target: str, held: contextlib.ExitStack
) -> Generator[Status, None, Digest]:
    handle, name = tempfile.mkstemp(prefix="incoming-", dir=store.blobs.root)
    os.close(handle)
    out = Path(name)
    try:
        with store_full(store.blobs.root):
            yield from quantize(gguf, target, out)
            with store.blobs.writer() as writer:
                with out.open("rb") as file:
                    while chunk := file.read(COPY_CHUNK):
                        writer.write(chunk)
                held.enter_context(store.keeping([writer.digest]))
                return writer.commit()
    finally:
        out.unlink(missing_ok=True)

"""Joining the shards of a split model into one file, so that a model is one blob that any program can load.

The metadata is taken over byte for byte from the first shard, less the keys that speak of the split; tensors
are copied in their order and never held in memory."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from llm_engine.models.errors import CreateError, InvalidGGUF
from llm_engine.models.gguf.file import MAGIC, GGUFFile
from llm_engine.models.gguf.values import MAX_KEY, Cursor

CHUNK = 4 * 1024 * 1024
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


def shard_order(files: Mapping[str, GGUFFile]) -> list[str]:
    """The names in the order of their shards; CreateError unless they are exactly the parts of one model."""
    if len(files) == 1:
        (name,) = files
        count = files[name].get("split.count", 1)
        if count > 1:
            raise CreateError(f"{name} is one of {count} shards of a model; all of them are needed")
        return [name]
    numbers: dict[int, str] = {}
    counts = {gguf.get("split.count", 0) for gguf in files.values()}
    for name, gguf in files.items():
        number = gguf.get("split.no", -1)
        if number < 0:
            raise CreateError(
                f"{name} is a model of its own; only the shards of one model can be given together"
            )
        if number in numbers:
            raise CreateError(f"{name} and {numbers[number]} are the same shard of a model")
        numbers[number] = name
    missing = sorted(set(range(max(counts))) - set(numbers))
    if len(counts) != 1 or missing:
        raise CreateError(
            f"shards of the model are missing: {[number + 1 for number in missing]} of {max(counts)}"
        )
    return [numbers[number] for number in sorted(numbers)]


def joined(shards: Sequence[GGUFFile]) -> GGUFFile:
    """One header for all: the metadata of the first shard, every tensor. InvalidGGUF when one is missing."""
    first = shards[0]
    if len(shards) == 1:
        return first
    numbers = sorted(shard.get("split.no", -1) for shard in shards)
    if numbers != list(range(first.get("split.count", 0))):
        raise InvalidGGUF(f"the {len(shards)} files of the weights are not all the shards of one model")
    tensors = tuple(tensor for shard in shards for tensor in shard.tensors)
    return GGUFFile(first.path, sum(shard.size for shard in shards), first.version, first.metadata, tensors)


def merge(shards: Sequence[GGUFFile]) -> tuple[int, Iterator[bytes]]:
    """The size of the joined file, and its bytes in pieces."""
    first = shards[0]
    alignment = first.get("general.alignment", 32)
    keys = raw_keys(first.path)
    kept = [raw for key, raw in keys if key not in SPLIT_KEYS]
    heads = bytearray()
    offset = 0
    count = 0
    for shard in shards:
        for tensor in shard.tensors:
            name = tensor.name.encode()
            heads += struct.pack("<Q", len(name)) + name
            heads += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            heads += struct.pack("<IQ", tensor.kind, offset)
            offset += _aligned(tensor.size, alignment)
            count += 1
    header = MAGIC + struct.pack("<IQQ", first.version, count, len(kept)) + b"".join(kept) + heads
    header += bytes(_aligned(len(header), alignment) - len(header))

    def pieces() -> Iterator[bytes]:
        yield header
        for shard in shards:
            with shard.path.open("rb") as file:
                for tensor in shard.tensors:
                    file.seek(tensor.offset)
                    yield from _read(file.read, tensor.size)
                    yield bytes(_aligned(tensor.size, alignment) - tensor.size)

    return len(header) + offset, pieces()


def _read(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = read(min(size, CHUNK))
        if not chunk:
            raise CreateError("a shard became shorter while it was read")
        size -= len(chunk)
        yield chunk


def _aligned(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment


def raw_keys(path: Path) -> list[tuple[str, bytes]]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        cursor = Cursor(view, 16)
        found = []
        for _ in range(cursor.u64()):
            start = cursor.offset
            key = cursor.string(limit=MAX_KEY)
            cursor.value(cursor.u32())
            found.append((key, bytes(view[start : cursor.offset])))
        return found

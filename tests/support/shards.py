"""Splitting a GGUF file as llama.cpp's own tool does: all metadata in the first shard, tensors in turn."""

from __future__ import annotations

import struct
from pathlib import Path

from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.merge import raw_keys

ALIGNMENT = 32


def split(source: Path, folder: Path, count: int, name: str = "model") -> list[Path]:
    gguf, raw = GGUFFile.open(source), source.read_bytes()
    room = -(-len(gguf.tensors) // count)
    return [
        _shard(gguf, raw, folder / f"{name}-{number + 1:05d}-of-{count:05d}.gguf", number, count, room)
        for number in range(count)
    ]


def _shard(gguf: GGUFFile, raw: bytes, path: Path, number: int, count: int, room: int) -> Path:
    own = [
        _key("split.no", 2, struct.pack("<H", number)),
        _key("split.count", 2, struct.pack("<H", count)),
        _key("split.tensors.count", 5, struct.pack("<i", len(gguf.tensors))),
    ]
    keys = [*([value for _, value in raw_keys(gguf.path)] if number == 0 else []), *own]
    tensors = gguf.tensors[number * room : (number + 1) * room]
    heads, data = b"", b""
    for tensor in tensors:
        heads += _text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        heads += struct.pack("<IQ", tensor.kind, len(data))
        data += raw[tensor.offset : tensor.offset + tensor.size] + bytes(-tensor.size % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", gguf.version, len(tensors), len(keys)) + b"".join(keys) + heads
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value

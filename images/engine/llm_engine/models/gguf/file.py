"""The head of one GGUF file: metadata and the list of tensors, checked against the size of the file.

Reading costs time by the length of the header, never by the size of the file: the bytes are mapped, not read.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from llm_engine.models.errors import InvalidGGUF
from llm_engine.models.gguf.types import file_type_name, tensor_bytes, tensor_type_name
from llm_engine.models.gguf.values import MAX_KEY, Array, Cursor, Value

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
# Real files have some dozens of keys and, the largest, some thousands of tensors.
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_TEXT_IN_ALL = 32 << 20
# The least that one entry takes: a header cannot announce more entries than fit in the file.
MIN_KEY_VALUE = 8 + 4 + 1
MIN_TENSOR = 8 + 4 + 4 + 8

T = TypeVar("T", int, float, bool, str)


@dataclass(frozen=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    """As in the file: the dimension that is contiguous comes first."""
    kind: int
    offset: int
    """From the start of the file."""
    size: int

    @property
    def type_name(self) -> str:
        return tensor_type_name(self.kind)

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class GGUFFile:
    path: Path
    size: int
    version: int
    metadata: dict[str, Value] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> GGUFFile:
        """Reads and checks the header; InvalidGGUF says what is wrong and where."""
        path = Path(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                raise InvalidGGUF("supplied file was not in GGUF format")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                return _read(path, Cursor(view), size)

    def array(self, key: str) -> list[Value]:
        """The elements of an array; empty where there is none."""
        where = self.metadata.get(key)
        if not isinstance(where, Array) or not where.count:
            return []
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            return Cursor(view).elements(where)

    def get(self, key: str, default: T) -> T:
        """A metadata value of the default's type; `{arch}.` keys may be asked for as `.key`."""
        value = self.metadata.get(self.architecture + key if key.startswith(".") else key)
        return value if isinstance(value, type(default)) else default

    @cached_property
    def footprint(self) -> int:
        """About how many bytes of memory the header takes."""
        texts = sum(len(value) for value in self.metadata.values() if isinstance(value, str))
        return 4 * texts + 400 * len(self.metadata) + 600 * len(self.tensors)

    @property
    def architecture(self) -> str:
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else "unknown"

    @cached_property
    def parameter_count(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def file_type(self) -> str:
        """`Q4_K_M`, `F16` ...: what the file says, or else what most of its bytes are."""
        declared = self.metadata.get("general.file_type")
        if isinstance(declared, int):
            name = file_type_name(declared)
            if name:
                return name
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.type_name] += tensor.size
        return sizes.most_common(1)[0][0] if sizes else "unknown"

    @property
    def is_projector(self) -> bool:
        return self.architecture == "clip" or self.get("general.type", "") == "mmproj"

    @property
    def is_adapter(self) -> bool:
        return self.get("general.type", "") == "adapter" or "adapter.type" in self.metadata


def _read(path: Path, cursor: Cursor, size: int) -> GGUFFile:
    if bytes(cursor.take(4)) != MAGIC:
        raise InvalidGGUF("supplied file was not in GGUF format")
    version = cursor.u32()
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in VERSIONS:
            raise InvalidGGUF("GGUF file is big-endian; convert it with gguf-convert-endian")
        raise InvalidGGUF(f"unsupported GGUF version {version}; versions 2 and 3 can be read")
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count * MIN_TENSOR + key_count * MIN_KEY_VALUE > size:
        raise InvalidGGUF(
            f"GGUF header announces {key_count} keys and {tensor_count} tensors in a file of {size} bytes"
        )
    if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
        raise InvalidGGUF(
            f"GGUF header has {key_count} keys and {tensor_count} tensors;"
            f" at most {MAX_KEYS} and {MAX_TENSORS} are read"
        )
    metadata: dict[str, Value] = {}
    texts = 0
    for _ in range(key_count):
        key = cursor.string(limit=MAX_KEY)
        if key in metadata:
            raise InvalidGGUF(f"GGUF key {key[:80]!r} occurs twice")
        metadata[key] = value = cursor.value(cursor.u32())
        texts += len(key) + (len(value) if isinstance(value, str) else 0)
        if texts > MAX_TEXT_IN_ALL:
            raise InvalidGGUF(f"GGUF header has more than {MAX_TEXT_IN_ALL} characters of keys and texts")
    heads = [_tensor_head(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise InvalidGGUF(f"GGUF alignment {alignment!r} is not a power of two")
    start = (cursor.offset + alignment - 1) // alignment * alignment
    return GGUFFile(path, size, version, metadata, _place(heads, start, size))


def _tensor_head(cursor: Cursor) -> TensorInfo:
    name = cursor.string(limit=MAX_KEY)
    dimensions = cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise InvalidGGUF(f"GGUF tensor {name[:80]!r} has {dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    kind, offset = cursor.u32(), cursor.u64()
    elements = 1
    for length in shape:
        elements *= length
        if length == 0 or elements >= 1 << 63:
            raise InvalidGGUF(f"GGUF tensor {name[:80]!r} has an impossible shape {list(shape)}")
    return TensorInfo(name, shape, kind, offset, tensor_bytes(name, kind, shape))


def _place(heads: list[TensorInfo], start: int, size: int) -> tuple[TensorInfo, ...]:
    """The tensors with offsets from the start of the file; no two share a name or a byte, none leaves the
    file."""
    if len({head.name for head in heads}) != len(heads):
        raise InvalidGGUF("GGUF file has two tensors of one name")
    placed = tuple(
        TensorInfo(head.name, head.shape, head.kind, start + head.offset, head.size) for head in heads
    )
    end = start
    for tensor in sorted(placed, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise InvalidGGUF(f"GGUF tensor {tensor.name[:80]!r} overlaps the one before it")
        end = tensor.offset + tensor.size
        if end > size:
            raise InvalidGGUF(
                f"GGUF file is truncated: tensor {tensor.name[:80]!r} ends at byte {end} of {size}"
            )
    return placed

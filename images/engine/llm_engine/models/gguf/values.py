"""Metadata values of a GGUF file, read from untrusted bytes.

Every length is compared with what the file still holds before anything is reserved, so a hostile header costs
neither memory nor time. Arrays are passed over and read when someone asks: vocabularies are the bulk of a
header."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TypeAlias

from llm_engine.models.errors import InvalidGGUF

FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    FLOAT32: struct.Struct("<f"),
    BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
MAX_KEY = 65535
MAX_NESTING = 4
# Far above any real header, far below what would take seconds: a header is read by the listing of models.
MAX_TEXT = 16 << 20
MAX_TEXTS = 4_000_000
MAX_NESTED = 10_000
MIN_STRING = 8  # its length field


@dataclass(frozen=True)
class Array:
    """Where an array is: `GGUFFile.array` reads it."""

    kind: int
    count: int
    offset: int


Value: TypeAlias = int | float | bool | str | Array


class Cursor:
    """A position in the bytes of a file; every step is checked against the end."""

    def __init__(self, data: memoryview, offset: int = 0) -> None:
        self.data = data
        self.offset = offset
        self.texts = self.nested = 0

    def take(self, size: int) -> memoryview:
        end = self.offset + size
        if end > len(self.data):
            raise InvalidGGUF(
                f"GGUF file ends at byte {len(self.data)} where {size} bytes at {self.offset} should be"
            )
        start, self.offset = self.offset, end
        return self.data[start:end]

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def string(self, limit: int | None = None) -> str:
        size = self.u64()
        if limit is not None and size > limit:
            raise InvalidGGUF(f"GGUF key of {size} bytes at byte {self.offset - 8} is too long")
        if size > MAX_TEXT and size <= len(self.data) - self.offset:
            raise InvalidGGUF(
                f"GGUF text of {size} bytes at byte {self.offset - 8} is longer than {MAX_TEXT}"
            )
        return bytes(self.take(size)).decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.skip_array()
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise InvalidGGUF(f"GGUF value of unknown type {kind} at byte {self.offset}")
        value: int | float | bool = scalar.unpack(self.take(scalar.size))[0]
        return shortest(value) if kind == FLOAT32 and isinstance(value, float) else value

    def array_head(self) -> Array:
        kind, count = self.u32(), self.u64()
        smallest = MIN_STRING if kind == STRING else 12 if kind == ARRAY else _size(kind, self.offset)
        if count * smallest > len(self.data) - self.offset:
            raise InvalidGGUF(f"GGUF array of {count} values at byte {self.offset} is longer than the file")
        return Array(kind, count, self.offset)

    def skip_array(self, depth: int = 1) -> Array:
        if depth > MAX_NESTING:
            raise InvalidGGUF(f"GGUF arrays are nested deeper than {MAX_NESTING} at byte {self.offset}")
        array = self.array_head()
        if array.kind == STRING:
            self.texts += array.count
            if self.texts > MAX_TEXTS:
                raise InvalidGGUF(f"GGUF header has {self.texts} texts in arrays, more than {MAX_TEXTS}")
            self._skip_strings(array.count)
        elif array.kind == ARRAY:
            self.nested += array.count
            if self.nested > MAX_NESTED:
                raise InvalidGGUF(f"GGUF header has {self.nested} arrays in arrays, more than {MAX_NESTED}")
            for _ in range(array.count):
                self.skip_array(depth + 1)
        else:
            self.take(array.count * _size(array.kind, self.offset))
        return array

    def _skip_strings(self, count: int) -> None:
        # The hot loop of reading a header: a vocabulary has hundreds of thousands of entries.
        data, offset, unpack, end = self.data, self.offset, _U64.unpack_from, len(self.data)
        for _ in range(count):
            if offset + 8 > end:
                break
            offset += 8 + unpack(data, offset)[0]
        else:
            if offset <= end:
                self.offset = offset
                return
        raise InvalidGGUF(f"GGUF array of {count} texts at byte {self.offset} is longer than the file")

    def elements(self, array: Array) -> list[Value]:
        self.offset = array.offset
        if array.kind in (STRING, ARRAY):
            return [self.value(array.kind) for _ in range(array.count)]
        scalar = _SCALARS[array.kind]
        raw = self.take(array.count * scalar.size)
        values: list[Value] = list(struct.unpack(f"<{array.count}{scalar.format[1:]}", raw))
        return values


def shortest(value: float) -> float:
    """1e-05 for the single-precision number that is 9.999999747378752e-06 in double precision."""
    if math.isfinite(value):
        for digits in range(6, 10):
            candidate = float(f"{value:.{digits}g}")
            if struct.pack("<f", candidate) == struct.pack("<f", value):
                return candidate
    return value


def _size(kind: int, offset: int) -> int:
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise InvalidGGUF(f"GGUF array of unknown type {kind} at byte {offset}")
    return scalar.size

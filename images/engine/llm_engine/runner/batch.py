"""The arrays of one `llama_decode` call, filled without a Python loop over tokens."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from llm_engine.runner.library import lib
from llm_engine.runner.vocab import TokenArray


class Batch:
    """Room for `capacity` tokens; `clear`, `put` several times, `decode`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.token = np.zeros(capacity, dtype=np.int32)
        self.pos = np.zeros(capacity, dtype=np.int32)
        self.sequence = np.zeros(capacity, dtype=np.int32)
        self.output = np.zeros(capacity, dtype=np.int8)
        self._counts = np.ones(capacity, dtype=np.int32)
        self._pointers = (self.sequence.ctypes.data + 4 * np.arange(capacity)).astype(np.uint64)
        self.size = 0
        self.outputs = 0
        self._whole = self.view(0, capacity)

    def clear(self) -> None:
        self.size = 0
        self.outputs = 0

    def put(self, sequence: int, position: int, tokens: TokenArray, *, outputs: int) -> int:
        """Append `tokens` of a sequence from `position` on; the last `outputs` of them want logits.

        Returns the row of the first of those logits among all that this batch will have.
        """
        start, end = self.size, self.size + len(tokens)
        self.token[start:end] = tokens
        self.pos[start:end] = np.arange(position, position + len(tokens))
        self.sequence[start:end] = sequence
        self.output[start:end] = 0
        if outputs:
            self.output[end - outputs : end] = 1
        row = self.outputs
        self.size = end
        self.outputs += outputs
        return row

    def view(self, start: int, end: int) -> Any:
        """A llama_batch over part of this one; valid while this object lives."""

        def at(array: Any, kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data + start * array.itemsize, ctypes.POINTER(kind))

        batch = lib.llama_batch()
        batch.n_tokens = end - start
        batch.token = at(self.token, ctypes.c_int32)
        batch.pos = at(self.pos, ctypes.c_int32)
        batch.n_seq_id = at(self._counts, ctypes.c_int32)
        batch.seq_id = at(self._pointers, ctypes.POINTER(ctypes.c_int32))
        batch.logits = at(self.output, ctypes.c_int8)
        return batch

    def decode(self, context: Any) -> int:
        """llama.cpp's verdict: 0 done, 1 no room, 2 aborted, negative broken. The interpreter lock is
        released.
        """
        self._whole.n_tokens = self.size
        return int(lib.llama_decode(context, self._whole))


def logits_matrix(context: Any, rows: int, width: int) -> Any:
    """The logits of the last decode as a numpy view, one row per output; gone with the next decode."""
    pointer = lib.llama_get_logits(context)
    address = ctypes.addressof(pointer.contents)
    raw: Any = (ctypes.c_float * (rows * width)).from_address(address)
    return np.frombuffer(raw, dtype=np.float32).reshape(rows, width)

"""What llama.cpp holds of one sequence, as bytes and back."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.library import lib

Bytes = NDArray[np.uint8]
_BYTE = ctypes.POINTER(ctypes.c_uint8)
# Everything, in main memory.
_FLAGS = 0


def state_size(context: Any, sequence: int) -> int:
    return int(lib.llama_state_seq_get_size_ext(context, sequence, _FLAGS))


def read_state(context: Any, sequence: int) -> Bytes | None:
    """A copy; None where llama.cpp could not make one, or there is no memory for it."""
    try:
        data = np.empty(state_size(context, sequence), dtype=np.uint8)
    except MemoryError:
        return None
    done = lib.llama_state_seq_get_data_ext(
        context, data.ctypes.data_as(_BYTE), data.nbytes, sequence, _FLAGS
    )
    return data if done == data.nbytes > 0 else None


def write_state(context: Any, sequence: int, data: Bytes) -> bool:
    """Into a sequence that is empty."""
    raw = data.ctypes.data_as(_BYTE)
    return bool(lib.llama_state_seq_set_data_ext(context, raw, data.nbytes, sequence, _FLAGS))

"""A random-weight llama with the shape of a 7B model, in Q4_K (about 4 GB)."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from tests.bench.engine import model
from tests.bench.engine.model import Size

_BLOCK, _BYTES = 256, 144


def random_q4_k(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Random blocks of Q4_K: two half-precision scales, twelve bytes of sub-scales, 128 bytes of quarters.

    Written as blocks, because quantising seven billion random numbers would take longer than all the rest.
    The scales are such that weights are small and lie around zero.
    """
    blocks = rows * columns // _BLOCK
    data = rng.integers(0, 256, size=(blocks, _BYTES), dtype=np.uint8)
    # Sub-scales and sub-minima of 32 each: in the low six bits of eight bytes, and for the other half of the
    # block in the high two bits of the same bytes and the last four.
    data[:, 4:12] = 32 | 2 << 6
    data[:, 12:16] = 0
    scales = np.empty((blocks, 2), dtype=np.float16)
    scales[:, 0] = 0.02 / (32 * 4.6)
    scales[:, 1] = 0.02 / (32 * 4.6) * 7.5
    data[:, :4] = scales.view(np.uint8)
    return data.reshape(rows, columns // _BLOCK * _BYTES)


SEVEN_BILLION = Size(
    name="7b-shaped",
    width=4096,
    layers=32,
    feed_forward=11008,
    heads=32,
    context=8192,
    file_type=gguf.LlamaFileType.MOSTLY_Q4_K_M,
    packing=GGMLQuantizationType.Q4_K,
    matrix=random_q4_k,
)


def build(vocabulary: Path, path: Path) -> Path:
    return model.build(vocabulary, path, size=SEVEN_BILLION)

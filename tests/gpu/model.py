"""A random-weight llama with the shape of a 7B model, in Q4_K, written tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from tests.bench.engine.model import TEMPLATE, copy_tokenizer

WIDTH, LAYERS, FEED_FORWARD, HEADS, CONTEXT = 4096, 32, 11008, 32, 8192
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


def build(vocabulary: Path, path: Path) -> Path:
    """Write the model (about 4 GB) unless it is there already."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama", use_temp_file=True)
    size = copy_tokenizer(GGUFReader(vocabulary), writer)
    writer.add_name("7b-shaped")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, random_q4_k(rng, rows, columns), raw_dtype=GGMLQuantizationType.Q4_K)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    matrix("token_embd.weight", size, WIDTH)
    ones("output_norm.weight")
    matrix("output.weight", size, WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{at}{name}.weight", WIDTH, WIDTH)
        matrix(at + "ffn_gate.weight", FEED_FORWARD, WIDTH)
        matrix(at + "ffn_up.weight", FEED_FORWARD, WIDTH)
        matrix(at + "ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path

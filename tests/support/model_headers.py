"""GGUF files of models that people run, with their real geometry and tensor sizes and nothing in the tensors:
sparse files, which take no room and can be read as any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quant_shape_to_byte_shape
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.scheduler.memory import Shape, shape_of

Q4, Q6 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K


@dataclass(frozen=True)
class Geometry:
    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    context: int = 131072


LLAMA_8B = Geometry(32, 4096, 32, 8, 14336, 128256)
LLAMA_70B = Geometry(80, 8192, 64, 8, 28672, 128256)


def build(path: Path, geometry: Geometry) -> Path:
    """A llama as `Q4_K_M` quantises it, but for the mixture of types, which is even here."""
    g = geometry
    out = GGUFWriter(path, "llama")
    out.add_block_count(g.layers)
    out.add_context_length(g.context)
    out.add_embedding_length(g.width)
    out.add_feed_forward_length(g.inner)
    out.add_head_count(g.heads)
    out.add_head_count_kv(g.kv_heads)
    out.add_vocab_size(g.vocabulary)
    total = 0

    def tensor(name: str, rows: int, columns: int, kind: GGMLQuantizationType) -> None:
        nonlocal total
        size = int(np.prod(quant_shape_to_byte_shape((rows, columns), kind)))
        out.add_tensor_info(name, (rows, columns), np.dtype(np.float16), size, raw_dtype=kind)
        total += -(-size // 32) * 32

    narrow = g.width // g.heads * g.kv_heads
    tensor("token_embd.weight", g.vocabulary, g.width, Q4)
    for layer in range(g.layers):
        for name, rows, columns, kind in (
            ("attn_q", g.width, g.width, Q4),
            ("attn_k", narrow, g.width, Q4),
            ("attn_v", narrow, g.width, Q6 if layer % 2 else Q4),
            ("attn_output", g.width, g.width, Q4),
            ("ffn_gate", g.inner, g.width, Q4),
            ("ffn_up", g.inner, g.width, Q4),
            ("ffn_down", g.width, g.inner, Q6 if layer % 2 else Q4),
        ):
            tensor(f"blk.{layer}.{name}.weight", rows, columns, kind)
    tensor("output.weight", g.vocabulary, g.width, Q6)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    out.close()
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(-(-file.tell() // 32) * 32 + total)
    return path


def shape(path: Path) -> Shape:
    file = read_gguf(path)
    return shape_of(dict(file.metadata), [(tensor.name, tensor.size) for tensor in file.tensors])

"""Random-weight llamas: real arithmetic at a real size, nothing to download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

# No part of it depends on `add_generation_prompt`: llama-server puts what does through a schema's grammar,
# loses its first character on the way with this kind of vocabulary, and refuses every schema.
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}\n"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}\n"
    "{% if m.role == 'user' %}<|assistant|>\n{% endif %}{% endif %}{% endfor %}"
)
Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Size:
    """What a llama of a certain size looks like, and how its matrices are made."""

    name: str
    width: int
    layers: int
    feed_forward: int
    heads: int
    context: int
    file_type: gguf.LlamaFileType
    packing: GGMLQuantizationType
    matrix: Callable[[np.random.Generator, int, int], Packed]


def random_q8_0(rng: np.random.Generator, rows: int, columns: int) -> Packed:
    values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
    packed: Packed = quants.quantize(values, GGMLQuantizationType.Q8_0)
    return packed


BENCH = Size(
    name="bench",
    width=768,
    layers=12,
    feed_forward=2048,
    heads=12,
    context=16384,
    file_type=gguf.LlamaFileType.MOSTLY_Q8_0,
    packing=GGMLQuantizationType.Q8_0,
    matrix=random_q8_0,
)
"""About 100 million parameters."""


def build(
    vocabulary: Path, path: Path, *, size: Size = BENCH, pooling: gguf.PoolingType | None = None
) -> Path:
    """Write the model, tensor by tensor, unless it is there already."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama", use_temp_file=True)
    words = copy_tokenizer(GGUFReader(vocabulary), writer)
    writer.add_name(size.name)
    writer.add_context_length(size.context)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size.width // size.heads)
    writer.add_vocab_size(words)
    writer.add_file_type(size.file_type)
    writer.add_chat_template(TEMPLATE)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_tensors(writer, size, words)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def copy_tokenizer(reader: GGUFReader, writer: GGUFWriter) -> int:
    """Copies the vocabulary; how many tokens it has."""
    size = 0
    for field in reader.fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
        if field.name == "tokenizer.ggml.tokens":
            size = len(field.data)
    return size


def _add_tensors(writer: GGUFWriter, size: Size, words: int) -> None:
    rng = np.random.default_rng(0)
    width, inner = size.width, size.feed_forward

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, size.matrix(rng, rows, columns), raw_dtype=size.packing)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, np.float32))

    matrix("token_embd.weight", words, width)
    ones("output_norm.weight")
    matrix("output.weight", words, width)
    for layer in range(size.layers):
        at = f"blk.{layer}."
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{at}{name}.weight", width, width)
        matrix(at + "ffn_gate.weight", inner, width)
        matrix(at + "ffn_up.weight", inner, width)
        matrix(at + "ffn_down.weight", width, inner)

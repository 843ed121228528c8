"""A random-weight llama of about 100 million parameters: real arithmetic at a real size, nothing to
download.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

WIDTH, LAYERS, FEED_FORWARD, HEADS, CONTEXT = 768, 12, 2048, 12, 16384
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def build(vocabulary: Path, path: Path, *, pooling: gguf.PoolingType | None = None) -> Path:
    """Write the model unless it is there already."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    size = copy_tokenizer(GGUFReader(vocabulary), writer)
    writer.add_name("bench")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_chat_template(TEMPLATE)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_tensors(writer, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def copy_tokenizer(reader: GGUFReader, writer: GGUFWriter) -> int:
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


def _add_tensors(writer: GGUFWriter, size: int) -> None:
    rng = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
        packed = quants.quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)

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

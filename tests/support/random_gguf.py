"""Random-weight GGUFs: nonsense text, real arithmetic. For whatever a scripted model's zero layers cannot
show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

VOCAB = 3 + 256


def build(
    path: Path,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    context: int = 4096,
    seed: int = 0,
    scale: float = 0.3,
    words: Sequence[str] = (),
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """A llama of `layers` layers over a vocabulary of bytes (and `words`).

    The weights are large, so that greedy choices rarely hang on a rounding error.
    """
    rng = np.random.default_rng(seed)
    out = GGUFWriter(path, "llama")
    texts = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *words]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    kinds += [TokenType.NORMAL] * len(words)
    out.add_name("random")
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(2 * width)
    out.add_head_count(heads)
    out.add_head_count_kv(heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(width // heads)
    if pooling is not None:
        out.add_pooling_type(pooling)
    out.add_vocab_size(len(texts))
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("llama")
    out.add_token_list(texts)
    out.add_token_scores([0.0] * len(texts))
    out.add_token_types(kinds)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_add_space_prefix(False)

    def matrix(name: str, rows: int, columns: int) -> None:
        values: npt.NDArray[np.float32] = rng.standard_normal((rows, columns)).astype(np.float32)
        out.add_tensor(name, values * np.float32(scale))

    def ones(name: str) -> None:
        out.add_tensor(name, np.ones(width, dtype=np.float32))

    matrix("token_embd.weight", len(texts), width)
    ones("output_norm.weight")
    matrix("output.weight", len(texts), width)
    for layer in range(layers):
        at = f"blk.{layer}."
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{at}{name}.weight", width, width)
        matrix(at + "ffn_gate.weight", 2 * width, width)
        matrix(at + "ffn_up.weight", 2 * width, width)
        matrix(at + "ffn_down.weight", width, 2 * width)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path

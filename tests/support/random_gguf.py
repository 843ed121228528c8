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
    architecture: str = "llama",
    window: int = 0,
) -> Path:
    """A model of `layers` layers over a vocabulary of bytes (and `words`): a llama, a `qwen2vl` (whose
    positions have several parts), a `gemma3` (whose layers look back `window` tokens), or an `lfm2` (whose
    first layer keeps a state, and whose others attend).

    The weights are large, so that greedy choices rarely hang on a rounding error.
    """
    rng = np.random.default_rng(seed)
    out = GGUFWriter(path, architecture)
    texts = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *words]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    kinds += [TokenType.NORMAL] * len(words)
    out.add_name("random")
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(2 * width)
    out.add_head_count(heads)
    hybrid = architecture == "lfm2"
    out.add_head_count_kv([0, *[heads] * (layers - 1)] if hybrid else heads)
    if hybrid:
        out.add_shortconv_l_cache(3)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(width // heads)
    if pooling is not None:
        out.add_pooling_type(pooling)
    if architecture == "qwen2vl":
        part = width // heads // 8
        out.add_rope_dimension_sections([part, part, 2 * part, 0])
    if window:
        out.add_sliding_window(window)
        out.add_key_length(width // heads)
        out.add_value_length(width // heads)
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

    def ones(name: str, size: int = width) -> None:
        out.add_tensor(name, np.ones(size, dtype=np.float32))

    matrix("token_embd.weight", len(texts), width)
    ones("token_embd_norm.weight" if hybrid else "output_norm.weight")
    matrix("output.weight", len(texts), width)
    for layer in range(layers):
        at = f"blk.{layer}."
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        if architecture == "gemma3":
            for name in ("post_attention_norm", "post_ffw_norm"):
                ones(f"{at}{name}.weight")
            for name in ("attn_q_norm", "attn_k_norm"):
                ones(f"{at}{name}.weight", width // heads)
        if hybrid and layer == 0:
            matrix(at + "shortconv.conv.weight", width, 3)
            matrix(at + "shortconv.in_proj.weight", 3 * width, width)
            matrix(at + "shortconv.out_proj.weight", width, width)
        else:
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                matrix(f"{at}{name}.weight", width, width)
        if hybrid and layer:
            ones(at + "attn_q_norm.weight", width // heads)
            ones(at + "attn_k_norm.weight", width // heads)
        matrix(at + "ffn_gate.weight", 2 * width, width)
        matrix(at + "ffn_up.weight", 2 * width, width)
        matrix(at + "ffn_down.weight", width, 2 * width)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path

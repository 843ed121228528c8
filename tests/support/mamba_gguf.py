"""A tiny random Mamba: a model whose memory is a state that cannot be cut."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFWriter, TokenType


def build(path: Path, *, width: int = 64, layers: int = 2, state: int = 16, rank: int = 4) -> Path:
    """Over the vocabulary of bytes that `random_gguf` has too."""
    rng = np.random.default_rng(3)
    inner, kernel = 2 * width, 4
    out = GGUFWriter(path, "mamba")
    texts = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    out.add_name("random-mamba")
    out.add_context_length(4096)
    out.add_embedding_length(width)
    out.add_feed_forward_length(0)
    out.add_head_count(0)
    out.add_block_count(layers)
    out.add_ssm_conv_kernel(kernel)
    out.add_ssm_inner_size(inner)
    out.add_ssm_state_size(state)
    out.add_ssm_time_step_rank(rank)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(texts))
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("llama")
    out.add_token_list(texts)
    out.add_token_scores([0.0] * len(texts))
    out.add_token_types([TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_add_space_prefix(False)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        out.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    add("token_embd.weight", len(texts), width)
    out.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    add("output.weight", len(texts), width)
    for layer in range(layers):
        at = f"blk.{layer}."
        out.add_tensor(at + "attn_norm.weight", np.ones(width, dtype=np.float32))
        add(at + "ssm_in.weight", 2 * inner, width)
        add(at + "ssm_conv1d.weight", inner, kernel)
        add(at + "ssm_conv1d.bias", inner)
        add(at + "ssm_x.weight", rank + 2 * state, inner, scale=0.1)
        add(at + "ssm_dt.weight", inner, rank)
        add(at + "ssm_dt.bias", inner)
        out.add_tensor(at + "ssm_a", -rng.uniform(0.1, 2.0, (inner, state)).astype(np.float32))
        add(at + "ssm_d", inner)
        add(at + "ssm_out.weight", width, inner, scale=0.2)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path

"""A BERT in its publisher's files (safetensors, WordPiece) as the GGUF that llama.cpp reads.

For the one real embedding model that a package registry carries; a model of this kind is what people use
for search, so vectors are compared with a reference's, and not only with themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

Floats = npt.NDArray[np.float32]
SPECIAL = {"[PAD]": "pad", "[UNK]": "unk", "[CLS]": "bos", "[SEP]": "sep", "[MASK]": "mask"}
_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def convert(folder: Path, out_path: Path) -> Path:
    """`folder` holds config.json, vocab.txt and model.safetensors."""
    config = json.loads((folder / "config.json").read_text())
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    out = GGUFWriter(out_path, "bert")
    out.add_name("all-MiniLM-L6-v2")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_layer_norm_eps(config["layer_norm_eps"])
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.MEAN)
    out.add_vocab_size(len(tokens))
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokens(out, tokens, config["type_vocab_size"])
    layers = config["num_hidden_layers"]
    for name, values in read_safetensors(folder / "model.safetensors").items():
        if target := _target(name, layers):
            out.add_tensor(target, values)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return out_path


def _add_tokens(out: GGUFWriter, tokens: list[str], types: int) -> None:
    """llama.cpp marks the beginning of a word; WordPiece marks the pieces inside of one."""
    kinds = [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens]
    out.add_tokenizer_model("bert")
    out.add_tokenizer_pre("default")
    out.add_token_type_count(types)
    out.add_token_list([_phantom(token) for token in tokens])
    out.add_token_types(kinds)
    for text, role in SPECIAL.items():
        getattr(out, f"add_{role}_token_id")(tokens.index(text))


def _phantom(token: str) -> str:
    if token in SPECIAL:
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def _target(name: str, layers: int) -> str | None:
    """The GGUF's name of a tensor; None for what embedding does not use."""
    stem, _, kind = name.rpartition(".")
    if name in _OUTER:
        return _OUTER[name]
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    for layer in range(layers):
        before = f"encoder.layer.{layer}."
        if stem.startswith(before) and (part := _LAYER.get(stem.removeprefix(before))):
            return f"blk.{layer}.{part}.{kind}"
    return None


def read_safetensors(path: Path) -> dict[str, Floats]:
    """Length, JSON with types and offsets, bytes: the whole format. Only float32 is expected here."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    found: dict[str, Floats] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[start:end], "<f4").reshape(entry["shape"])
    return found

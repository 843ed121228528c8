"""A random cross-encoder, and the same sums in numpy: what a reranker's scores must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

Floats = npt.NDArray[np.float64]
BOS, EOS, SEP = 1, 2, 3
FIRST_BYTE = 4
WIDTH, LAYERS, HEADS, INNER, CONTEXT, EPSILON = 32, 2, 4, 64, 256, 1e-6


class CrossEncoder:
    """BERT with a classification head: the first token's state, a dense layer, tanh, and one output."""

    def __init__(self, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)

        def random(*shape: int) -> Floats:
            return (rng.standard_normal(shape) * 0.4).astype(np.float32).astype(np.float64)

        vocabulary = FIRST_BYTE + 256
        self.tensors: dict[str, Floats] = {
            "token_embd.weight": random(vocabulary, WIDTH),
            "token_types.weight": random(2, WIDTH),
            "position_embd.weight": random(CONTEXT, WIDTH),
            "token_embd_norm.weight": 1 + random(WIDTH),
            "token_embd_norm.bias": random(WIDTH),
            "cls.weight": random(WIDTH, WIDTH),
            "cls.bias": random(WIDTH),
            "cls.output.weight": random(1, WIDTH),
            "cls.output.bias": random(1),
        }
        for layer in range(LAYERS):
            at = f"blk.{layer}."
            for name, rows, columns in (
                ("attn_q", WIDTH, WIDTH),
                ("attn_k", WIDTH, WIDTH),
                ("attn_v", WIDTH, WIDTH),
                ("attn_output", WIDTH, WIDTH),
                ("ffn_up", INNER, WIDTH),
                ("ffn_down", WIDTH, INNER),
            ):
                self.tensors[f"{at}{name}.weight"] = random(rows, columns)
                self.tensors[f"{at}{name}.bias"] = random(rows)
            for name in ("attn_output_norm", "layer_output_norm"):
                self.tensors[f"{at}{name}.weight"] = 1 + random(WIDTH)
                self.tensors[f"{at}{name}.bias"] = random(WIDTH)

    def write(self, path: Path) -> Path:
        out = GGUFWriter(path, "bert")
        texts = ["<unk>", "<s>", "</s>", "<sep>", *[f"<0x{byte:02X}>" for byte in range(256)]]
        kinds = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 3, *[TokenType.BYTE] * 256]
        out.add_name("cross-encoder")
        out.add_context_length(CONTEXT)
        out.add_embedding_length(WIDTH)
        out.add_block_count(LAYERS)
        out.add_feed_forward_length(INNER)
        out.add_head_count(HEADS)
        out.add_layer_norm_eps(EPSILON)
        out.add_causal_attention(False)
        out.add_pooling_type(gguf.PoolingType.RANK)
        out.add_vocab_size(len(texts))
        out.add_file_type(gguf.LlamaFileType.ALL_F32)
        out.add_tokenizer_model("llama")
        out.add_token_list(texts)
        out.add_token_scores([0.0] * len(texts))
        out.add_token_types(kinds)
        out.add_token_type_count(2)
        out.add_bos_token_id(BOS)
        out.add_eos_token_id(EOS)
        out.add_sep_token_id(SEP)
        out.add_add_bos_token(True)
        out.add_add_eos_token(True)
        out.add_add_sep_token(True)
        out.add_add_space_prefix(False)
        for name, values in self.tensors.items():
            out.add_tensor(name, values.astype(np.float32))
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return path

    def score(self, query: str, document: str) -> float:
        ids = [BOS, *_bytes(query), EOS, SEP, *_bytes(document), EOS]
        x = (
            self.tensors["token_embd.weight"][ids]
            + self.tensors["token_types.weight"][0]
            + self.tensors["position_embd.weight"][: len(ids)]
        )
        x = self._norm("token_embd_norm", x)
        for layer in range(LAYERS):
            at = f"blk.{layer}."
            x = self._norm(at + "attn_output_norm", x + self._attention(at, x))
            inner = _gelu(self._dense(at + "ffn_up", x))
            x = self._norm(at + "layer_output_norm", x + self._dense(at + "ffn_down", inner))
        head = np.tanh(self._dense("cls", x[0]))
        return float(self._dense("cls.output", head)[0])

    def _dense(self, name: str, x: Floats) -> Floats:
        result: Floats = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return result

    def _norm(self, name: str, x: Floats) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        result: Floats = unit * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return result

    def _attention(self, at: str, x: Floats) -> Floats:
        """Every token looks at every other one."""
        q, k, v = (
            self._dense(f"{at}attn_{name}", x).reshape(len(x), HEADS, -1).transpose(1, 0, 2) for name in "qkv"
        )
        weights = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._dense(at + "attn_output", (weights @ v).transpose(1, 0, 2).reshape(len(x), WIDTH))


def _bytes(text: str) -> Sequence[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def _gelu(x: Floats) -> Floats:
    result: Floats = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result

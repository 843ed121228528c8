"""Builds tiny models that say what they are told: the stand-in for a real model in tests and on a fresh
stack.

How: one transformer layer whose attention and feed-forward weights are zero, so that the next token depends
on the present token alone. The output row of a token is the embedding of the token that comes before it in
the script, so the script unrolls; one extra dimension is a constant that makes "the first token of the
default script" win wherever no rule applies. The vocabulary is 256 byte tokens plus the pieces of the
scripts, so any text can be tokenised.

Guarantees: the same arguments give the same bytes; `build` checks that each step of each script wins by a
margin that no usual temperature overcomes, or raises `ValueError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

UNK, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
SCALE = 30.0
# The default rule must lose against a script's own rule (0.5) and win against the noise of random embeddings.
DEFAULT_WEIGHT = 0.35
MIN_MARGIN = 20.0

Floats = npt.NDArray[np.float32]


@dataclass
class _Vocabulary:
    texts: list[str] = field(default_factory=lambda: ["<unk>", "<s>", "</s>"])
    types: list[int] = field(
        default_factory=lambda: [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    )

    def __post_init__(self) -> None:
        for byte in range(256):
            self.add(f"<0x{byte:02X}>", TokenType.BYTE)
        self._known = set(self.texts)

    def add(self, text: str, kind: int) -> int:
        self.texts.append(text)
        self.types.append(kind)
        return len(self.texts) - 1

    def add_new(self, text: str, kind: int) -> int:
        # llama.cpp refuses a vocabulary with two equal texts.
        if text in self._known:
            raise ValueError(f"token {text!r} is in the vocabulary twice")
        self._known.add(text)
        return self.add(text, kind)

    def add_script(self, text: str) -> list[int]:
        """Cut a text into pieces that no other script uses, and return their ids."""
        ids: list[int] = []
        pending = ""
        for word in re.findall(r"\s*\S{1,6}|\s+", text):
            pending += word
            piece = pending.replace(" ", "▁")
            # One- and two-character pieces would be found in prompts as well, and start the script in its
            # middle.
            if len(piece) < 3 or piece in self._known:
                continue
            ids.append(self.add_new(piece, TokenType.NORMAL))
            pending = ""
        if pending and ids:
            # The rest of the text is a repetition: lengthen the last piece until it is a new one.
            last = self.texts.pop()
            self.types.pop()
            self._known.discard(last)
            ids[-1] = self.add_new(last + pending.replace(" ", "▁"), TokenType.NORMAL)
        elif pending:
            ids.append(self.add_new(pending.replace(" ", "▁"), TokenType.NORMAL))
        return ids


def build(
    path: Path | str,
    scripts: Mapping[str | None, str],
    *,
    name: str = "scripted",
    chat_template: str | None = None,
    control_tokens: Iterable[str] = (),
    endless: bool = False,
    embedding: bool = False,
    context_length: int = 32768,
    width: int = 128,
    metadata: Mapping[str, str | int | float | bool] | None = None,
) -> Path:
    """Write a scripted GGUF.

    `scripts` maps the control token that ends a prompt to the text that is said after it; None is the
    default. Each trigger is added to the vocabulary, and so are `control_tokens` (which have no rule of their
    own, so the default follows them). `endless` repeats each script for ever instead of ending it.
    `embedding` makes an embedding model (mean pooling). `metadata` adds or replaces GGUF keys."""
    path = Path(path)
    vocabulary = _Vocabulary()
    triggers = {
        trigger: vocabulary.add_new(trigger, TokenType.CONTROL) for trigger in scripts if trigger is not None
    }
    for token in control_tokens:
        if token not in triggers:
            vocabulary.add_new(token, TokenType.CONTROL)
    rules: dict[int, int] = {}
    default = EOS
    for trigger, text in scripts.items():
        ids = vocabulary.add_script(text)
        if not ids:
            ids = [EOS]
        last = ids[0] if endless else EOS
        rules.update(zip(ids, [*ids[1:], last], strict=True))
        if trigger is None:
            default = ids[0]
        else:
            rules[triggers[trigger]] = ids[0]
    embeddings, output = _weights(len(vocabulary.texts), width, rules, default)
    writer = GGUFWriter(str(path), "llama")
    writer.add_name(name)
    _write_hyperparameters(writer, width, context_length, embedding)
    _write_vocabulary(writer, vocabulary, chat_template)
    for key, value in (metadata or {}).items():
        _write_metadata(writer, key, value)
    _write_tensors(writer, embeddings, output, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(size: int, width: int, rules: Mapping[int, int], default: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((size, width)).astype(np.float32)
    embeddings[:, -1] = 0
    embeddings *= np.sqrt(0.5) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[:, -1] = np.sqrt(0.5)
    output = np.zeros((size, width), np.float32)
    output[default, -1] = DEFAULT_WEIGHT * SCALE
    for before, after in rules.items():
        output[after, :-1] += SCALE * embeddings[before, :-1]
    logits = np.sqrt(width) * embeddings @ output.T
    want = np.full(size, default)
    for before, after in rules.items():
        want[before] = after
    rows = np.arange(size)
    wanted = logits[rows, want].copy()
    logits[rows, want] = -np.inf
    margin = float(np.min(wanted - logits.max(axis=1)))
    if margin < MIN_MARGIN:
        raise ValueError(
            f"the scripts are too long for width {width}: "
            f"margin {margin:.1f} < {MIN_MARGIN}; use a larger width"
        )
    return embeddings, output


def _write_hyperparameters(writer: GGUFWriter, width: int, context_length: int, embedding: bool) -> None:
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 4)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if embedding:
        writer.add_pooling_type(gguf.PoolingType.MEAN)


def _write_vocabulary(writer: GGUFWriter, vocabulary: _Vocabulary, chat_template: str | None) -> None:
    size = len(vocabulary.texts)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.texts)
    writer.add_token_scores([-1e6 if kind == TokenType.NORMAL else 0.0 for kind in vocabulary.types])
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _write_metadata(writer: GGUFWriter, key: str, value: str | int | float | bool) -> None:
    for shard in writer.kv_data:
        shard.pop(key, None)
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _write_tensors(writer: GGUFWriter, embeddings: Floats, output: Floats, width: int) -> None:
    def zeros(*shape: int) -> npt.NDArray[np.float16]:
        return np.zeros(shape, np.float16)

    writer.add_tensor("token_embd.weight", embeddings.astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", output.astype(np.float16))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", zeros(width, width))
    writer.add_tensor("blk.0.ffn_gate.weight", zeros(32, width))
    writer.add_tensor("blk.0.ffn_up.weight", zeros(32, width))
    writer.add_tensor("blk.0.ffn_down.weight", zeros(width, 32))

"""How much memory a model will need.

The figures come from the file itself (bytes of each layer's tensors, heads and widths for the cache); the
compute buffer is llama.cpp's own rule of thumb, rounded up. They decide what is evicted and what is
refused; what is reported after the load is measured, not estimated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LAYER = re.compile(r"blk\.(\d+)\.")
# Bytes per element; the quantised ones are block sizes divided by 32.
KV_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
FIXED_OVERHEAD = 64 << 20
STEP = 512
"""Tokens that llama.cpp computes at once, at most."""
GPU_RESERVE = 256 << 20
"""What CUDA itself takes for a context, before the first tensor."""


@dataclass(frozen=True)
class Shape:
    """What a GGUF file says about its size."""

    layers: Sequence[int] = ()
    """Bytes of each transformer layer's tensors."""
    other: int = 0
    """Bytes outside the layers: embeddings, output, norms."""
    kv_elements: Sequence[int] = ()
    """Cache elements (keys and values) per token, for each layer."""
    n_embd: int = 0
    n_vocab: int = 0
    n_head: int = 0
    n_ctx_train: int = 0
    extra: int = 0
    """Files loaded beside it: projector, adapters, draft model."""
    beside: int = 0
    """Bytes that those files take when they compute, whatever the length of the cache."""
    draft: Shape | None = None
    """The draft model, which has a cache of its own; its file is counted in `extra`."""
    input: int = 0
    """Bytes of the input embeddings, part of `other`: they never leave main memory. 0 where the output layer
    is made of them, which puts them where the output is."""

    @property
    def weights(self) -> int:
        return sum(self.layers) + self.other + self.extra


@dataclass(frozen=True)
class Need:
    weights: int
    kv: int
    compute: int
    beside: int = 0
    """What a projector and a draft model take to compute, and the draft's cache."""

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.beside


def shape_of(
    metadata: Mapping[str, Any],
    tensors: Iterable[tuple[str, int]],
) -> Shape:
    """Reads the figures out of GGUF metadata and (name, bytes) of each tensor."""
    by_layer: dict[int, int] = {}
    other = 0
    outside: dict[str, int] = {}
    for name, size in tensors:
        if match := _LAYER.match(name):
            by_layer[int(match[1])] = by_layer.get(int(match[1]), 0) + size
        else:
            other += size
            outside[name] = size
    architecture = str(metadata.get("general.architecture", ""))

    def value(key: str, default: int = 0) -> int:
        found = metadata.get(f"{architecture}.{key}", default)
        return found if isinstance(found, int) else default

    count = max(value("block_count"), len(by_layer))
    heads = value("attention.head_count")
    width = value("embedding_length")
    head_width = width // heads if heads else 0
    per_head = value("attention.key_length", head_width) + value("attention.value_length", head_width)
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    heads_of = list(kv_heads) if isinstance(kv_heads, (list, tuple)) else [int(kv_heads or heads)] * count
    heads_of += [heads_of[-1] if heads_of else 0] * (count - len(heads_of))
    vocabulary = metadata.get("tokenizer.ggml.tokens")
    n_vocab = value("vocab_size", len(vocabulary) if isinstance(vocabulary, (list, tuple)) else 0)
    if metadata.get(f"{architecture}.attention.causal") is False:
        n_vocab = 0  # it looks both ways, so it only embeds: nothing is made for each word
    return Shape(
        layers=tuple(by_layer.get(index, 0) for index in range(count)),
        other=other,
        kv_elements=tuple(per_head * int(heads_of[index]) for index in range(count)),
        n_embd=width,
        n_vocab=n_vocab,
        n_head=heads,
        n_ctx_train=value("context_length"),
        input=outside.get("token_embd.weight", 0) if "output.weight" in outside else 0,
    )


def need(
    shape: Shape, *, cells: int, num_batch: int, kv_type: str, flash: bool = True, embedding: bool = False
) -> Need:
    """The whole memory of a load. What embeds computes an input at once, however long it is."""
    step = max(STEP, min(cells, shape.n_ctx_train or cells)) if embedding else min(num_batch, STEP)
    kv, compute = _cache(shape, cells, kv_type), _computing(shape, step, cells, flash)
    beside = shape.beside
    if shape.draft is not None:
        beside += _cache(shape.draft, cells, kv_type) + _computing(shape.draft, step, cells, flash)
    return Need(shape.weights, kv, compute + FIXED_OVERHEAD, beside)


def _cache(shape: Shape, cells: int, kv_type: str) -> int:
    return int(cells * KV_BYTES.get(kv_type, 2.0) * sum(shape.kv_elements))


def _computing(shape: Shape, step: int, cells: int, flash: bool) -> int:
    """Activations of one step and the logits of its outputs; which token may see which cell; and, without
    flash attention, every head's scores."""
    per_token = 8 * shape.n_embd + min(shape.n_vocab, 262144)
    per_cell = 6 if flash else 6 + 4 * shape.n_head
    return step * (4 * per_token + cells * per_cell)


def projector_beside(metadata: Mapping[str, Any]) -> int:
    """What an encoder of pictures takes to compute the largest one that is not cut into slices: its patches
    as they pass a layer, and every head's scores. 0 where its header does not say how it looks."""

    def value(key: str) -> int:
        found = metadata.get(f"clip.vision.{key}", 0)
        return found if isinstance(found, int) else 0

    if not value("patch_size"):
        return 0
    patches = (value("image_size") // value("patch_size")) ** 2
    width = 8 * value("embedding_length") + value("feed_forward_length")
    return 4 * patches * (width + value("attention.head_count") * patches)


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML sees it now."""

    index: int
    name: str
    total: int
    free: int

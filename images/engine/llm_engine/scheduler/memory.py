"""How much memory a model will need, and how many of its layers a GPU can hold.

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

    @property
    def weights(self) -> int:
        return sum(self.layers) + self.other + self.extra


@dataclass(frozen=True)
class Need:
    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


def shape_of(metadata: Mapping[str, Any], tensors: Iterable[tuple[str, int]], extra: int = 0) -> Shape:
    """Reads the figures out of GGUF metadata and (name, bytes) of each tensor."""
    by_layer: dict[int, int] = {}
    other = 0
    for name, size in tensors:
        if match := _LAYER.match(name):
            by_layer[int(match[1])] = by_layer.get(int(match[1]), 0) + size
        else:
            other += size
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
    return Shape(
        layers=tuple(by_layer.get(index, 0) for index in range(count)),
        other=other,
        kv_elements=tuple(per_head * int(heads_of[index]) for index in range(count)),
        n_embd=width,
        n_vocab=n_vocab,
        n_head=heads,
        n_ctx_train=value("context_length"),
        extra=extra,
    )


def need(shape: Shape, *, cells: int, num_batch: int, kv_type: str) -> Need:
    """The whole memory of a load."""
    element = KV_BYTES.get(kv_type, 2.0)
    kv = int(cells * element * sum(shape.kv_elements))
    # Activations of one batch and the logits of the outputs; attention without flash keeps a score matrix
    # too.
    compute = num_batch * 4 * (8 * shape.n_embd + min(shape.n_vocab, 262144)) + num_batch * 4 * min(
        cells, 32768
    )
    return Need(shape.weights, kv, compute + FIXED_OVERHEAD)


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML sees it now."""

    index: int
    name: str
    total: int
    free: int


@dataclass(frozen=True)
class Placement:
    """Which layers go to GPUs. `num_gpu` counts them as llama.cpp does: the output layer is one more."""

    num_gpu: int
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    vram: int = 0
    ram: int = 0


def place(
    shape: Shape, wanted: Need, gpus: Sequence[Gpu], *, reserve: int, num_gpu: int | None, spread: bool
) -> Placement:
    """Fill the GPU with most room; use several only where one does not do, or `spread` asks for it."""
    if not gpus or num_gpu == 0:
        return Placement(0, ram=wanted.total)
    rooms = {gpu.index: max(gpu.free - reserve - GPU_RESERVE - wanted.compute, 0) for gpu in gpus}
    count = len(shape.layers)
    kv_total = sum(shape.kv_elements) or 1
    costs = [
        size + int(wanted.kv * elements / kv_total)
        for size, elements in zip(shape.layers, shape.kv_elements, strict=True)
    ]
    whole = sum(costs) + shape.other + shape.extra
    best = max(gpus, key=lambda gpu: rooms[gpu.index])
    if not spread and (rooms[best.index] >= whole or len(gpus) == 1):
        use = [best]
    else:
        use = sorted(gpus, key=lambda gpu: gpu.index)
    room = sum(rooms[gpu.index] for gpu in use)
    limit = count + 1 if num_gpu is None or num_gpu < 0 else min(num_gpu, count + 1)
    placed, spent = 0, 0
    # llama.cpp offloads the last layers first, and the output after all of them.
    for cost in reversed(costs):
        if placed >= limit or (num_gpu is None and spent + cost > room):
            break
        placed, spent = placed + 1, spent + cost
    if (
        placed == count
        and placed < limit
        and (num_gpu is not None or spent + shape.other + shape.extra <= room)
    ):
        placed, spent = placed + 1, spent + shape.other + shape.extra
    if placed == 0:
        return Placement(0, ram=wanted.total)
    vram = spent + wanted.compute * len(use)
    split = tuple(float(rooms.get(gpu.index, 0)) if gpu in use else 0.0 for gpu in gpus)
    return Placement(placed, split if len(gpus) > 1 else (), best.index, vram, max(wanted.total - vram, 0))

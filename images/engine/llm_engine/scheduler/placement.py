"""Which layers of a model go to which GPU.

llama.cpp keeps the input embeddings in main memory, counts the output as one more layer after the last, and
offloads from the end: `num_gpu` of 1 is the output alone, and a model is wholly on GPUs from its number of
layers plus one on. Layers go to the GPUs in order, each getting its share of `tensor_split`. What is given
to llama.cpp here as shares are numbers of layers, so that it places them exactly as was reckoned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_engine.scheduler.memory import GPU_RESERVE, Gpu, Need, Shape

_BALANCE_STEPS = 12


@dataclass(frozen=True)
class Wishes:
    """What was asked for by a request or in the settings."""

    num_gpu: int | None = None
    """Layers to offload; None: as many as fit."""
    main_gpu: int | None = None
    reserve: int = 0
    """Bytes of each GPU that are left alone."""
    spread: bool = False
    """Use all GPUs also where one would do."""
    shares: Sequence[float] = ()
    """How much of the model each GPU gets, by its index."""
    single: bool = False
    """Never more than one GPU."""


@dataclass(frozen=True)
class Placement:
    num_gpu: int = 0
    whole: bool = False
    """Whether all of it that can be on a GPU is, or as much as was asked for."""
    fits: bool = True
    """False: it was asked for by number, and does not fit as far as can be told."""
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    vram: Mapping[int, int] = field(default_factory=dict)
    """Bytes by GPU, with what the driver takes for itself."""
    ram: int = 0


def place(shape: Shape, wanted: Need, gpus: Sequence[Gpu], wishes: Wishes) -> Placement:
    """On the fewest GPUs that hold the model whole, the freest first; on all of them where none do."""
    if not gpus or wishes.num_gpu == 0:
        return Placement(ram=wanted.total, whole=True)
    parts = _parts(shape, wanted)
    limit = len(parts) if wishes.num_gpu is None else min(wishes.num_gpu, len(parts))
    rooms = {gpu.index: gpu.free - wishes.reserve - GPU_RESERVE - wanted.compute for gpu in gpus}
    groups = _groups(rooms, wishes)
    for group in groups:
        counts = _spread([rooms[index] for index in group], parts[-limit:], _shares(group, wishes))
        if counts is not None:
            return _result(parts, counts, group, wanted, gpus, whole=True)
    group = groups[-1]
    if wishes.num_gpu is not None:
        forced = _proportional(limit, _shares(group, wishes) or [max(rooms[i], 1) for i in group])
        return _result(parts, forced, group, wanted, gpus, whole=True, fits=False)
    for count in range(limit - 1, 0, -1):
        counts = _spread([rooms[index] for index in group], parts[-count:], _shares(group, wishes))
        if counts is not None:
            return _result(parts, counts, group, wanted, gpus, whole=False)
    return Placement(ram=wanted.total)


def _parts(shape: Shape, wanted: Need) -> list[int]:
    """What each layer takes with its share of the cache, and the output last."""
    elements = sum(shape.kv_elements) or 1
    layers = [
        size + wanted.kv * mine // elements
        for size, mine in zip(shape.layers, shape.kv_elements, strict=True)
    ]
    return [*layers, shape.other - shape.input + shape.extra + wanted.beside]


def _groups(rooms: Mapping[int, int], wishes: Wishes) -> list[list[int]]:
    """The sets of GPUs to try, each in the order of their indices."""
    order = sorted(rooms, key=lambda index: (index != wishes.main_gpu, -rooms[index], index))
    if wishes.single:
        return [order[:1]]
    if wishes.shares:
        return [[i for i in sorted(rooms) if i < len(wishes.shares) and wishes.shares[i]] or sorted(rooms)]
    if wishes.spread:
        return [sorted(rooms)]
    return [sorted(order[: count + 1]) for count in range(len(order))]


def _shares(group: Sequence[int], wishes: Wishes) -> list[float]:
    shares = [wishes.shares[index] if index < len(wishes.shares) else 0.0 for index in group]
    return shares if sum(shares) else []


def _spread(rooms: Sequence[int], parts: Sequence[int], shares: Sequence[float]) -> list[int] | None:
    """How many parts each GPU takes, filled evenly, or None where they do not fit."""
    if shares:
        counts = _proportional(len(parts), shares)
        return counts if _within(counts, parts, rooms) else None
    best = _fill(rooms, parts, 1.0)
    if best is None or len(rooms) == 1:
        return best
    low, high = 0.0, 1.0
    for _ in range(_BALANCE_STEPS):
        middle = (low + high) / 2
        if (evener := _fill(rooms, parts, middle)) is None:
            low = middle
        else:
            best, high = evener, middle
    return best


def _fill(rooms: Sequence[int], parts: Sequence[int], scale: float) -> list[int] | None:
    """One GPU after the other, each up to `scale` of its room."""
    counts, at = [], 0
    for room in rooms:
        left, first = int(room * scale), at
        while at < len(parts) and parts[at] <= left:
            left -= parts[at]
            at += 1
        counts.append(at - first)
    return counts if at == len(parts) else None


def _proportional(count: int, shares: Sequence[float]) -> list[int]:
    """As llama.cpp does it: a part goes to the first GPU whose bound lies above its place."""
    bounds, total = [], 0.0
    for share in shares:
        total += share
        bounds.append(total)
    counts = [0] * len(shares)
    for at in range(count):
        counts[next(k for k, bound in enumerate(bounds) if bound / total > at / count)] += 1
    return counts


def _within(counts: Sequence[int], parts: Sequence[int], rooms: Sequence[int]) -> bool:
    return all(spent <= room for spent, room in zip(_spent(counts, parts), rooms, strict=True))


def _spent(counts: Sequence[int], parts: Sequence[int]) -> list[int]:
    spent, at = [], 0
    for count in counts:
        spent.append(sum(parts[at : at + count]))
        at += count
    return spent


def _result(
    parts: Sequence[int],
    counts: Sequence[int],
    group: Sequence[int],
    wanted: Need,
    gpus: Sequence[Gpu],
    *,
    whole: bool,
    fits: bool = True,
) -> Placement:
    placed = sum(counts)
    spent = _spent(counts, parts[-placed:])
    split = [0.0] * (max(gpu.index for gpu in gpus) + 1)
    for index, count in zip(group, counts, strict=True):
        split[index] = float(count)
    # The layers that stay behind are computed in main memory, which takes buffers there as well.
    behind = wanted.total - sum(spent) - (wanted.compute if placed == len(parts) else 0)
    return Placement(
        num_gpu=placed,
        whole=whole,
        fits=fits,
        tensor_split=tuple(split) if len(split) > 1 else (),
        main_gpu=group[max(range(len(group)), key=lambda at: counts[at])],
        vram={
            index: taken + wanted.compute + GPU_RESERVE
            for index, taken, count in zip(group, spent, counts, strict=True)
            if count
        },
        ram=max(behind, 0),
    )

"""How a model is loaded into the memory there is, or who has to leave for it: figures in, a verdict out.

The order in which things give way: cache for parallel sequences beyond one whole context; half of the
automatic context; idle models, the least recently used first; the rest of the automatic context; models in
use, which leave when their last user has; and only then layers, which go to main memory. A context that was
asked for stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler import memory
from llm_engine.scheduler.memory import Gpu
from llm_engine.scheduler.placement import Placement, Wishes, place
from llm_engine.scheduler.plan import LEAST_AUTOMATIC, Plan


@dataclass(frozen=True)
class Neighbour:
    """Another model in memory."""

    idle: bool
    """It could leave now."""
    pinned: bool = False
    vram: Mapping[int, int] = field(default_factory=dict)
    ram: int = 0


@dataclass(frozen=True)
class Machine:
    """The memory there is to give."""

    gpus: Sequence[Gpu]
    ram: int
    reserve: int = 0
    spread: bool = False


@dataclass(frozen=True)
class Load:
    spec: LoadSpec
    placement: Placement


@dataclass(frozen=True)
class Evict:
    why: str
    from_gpu: bool
    """It is GPU memory that is short; else main memory."""
    missing: int = 0
    """Bytes of main memory."""


@dataclass(frozen=True)
class Short:
    """It does not fit, whoever leaves."""

    why: str
    missing: int


Verdict = Load | Evict | Short


def decide(plan: Plan, spec: LoadSpec, machine: Machine, neighbours: Sequence[Neighbour]) -> Verdict:
    """`spec` is the load as it is wished for, with its cache in `cells`."""
    movable = [each for each in neighbours if not each.pinned]
    contexts = list(_contexts(plan, spec))
    target = _whole(plan, contexts, _without(machine, movable), 0)
    if target is None:
        return _in_parts(plan, contexts, machine, movable)
    floor = target.spec.num_ctx
    if plan.automatic:
        floor = max(floor // 2, min(floor, LEAST_AUTOMATIC))
    if load := _whole(plan, contexts, machine, floor):
        return load
    verdict = _evict(plan, contexts, machine, floor, movable)
    if any(each.idle for each in movable):
        return verdict
    return _whole(plan, contexts, machine, 0) or verdict


def beside(plan: Plan, spec: LoadSpec, machine: Machine, going: Sequence[Neighbour]) -> Machine | None:
    """What others may take while the model waits for these to go, so that it fits once they have; None where
    it would not fit even then."""
    after = _without(machine, going)
    target = decide(plan, spec, after, ())
    if not isinstance(target, Load):
        return None
    taken = target.placement.vram
    gpus = [
        replace(now, free=max(0, min(now.free, then.free - taken.get(now.index, 0))))
        for now, then in zip(machine.gpus, after.gpus, strict=True)
    ]
    return replace(machine, gpus=gpus, ram=min(machine.ram, after.ram - target.placement.ram))


def _contexts(plan: Plan, spec: LoadSpec) -> Iterator[LoadSpec]:
    """The load with less and less cache."""
    assert spec.cells is not None
    length = spec.num_ctx
    share = spec.cells / length
    while True:
        for cells in dict.fromkeys((round(length * share), min(length, spec.cells))):
            yield replace(spec, num_ctx=length, cells=cells)
        if not plan.automatic or length <= LEAST_AUTOMATIC:
            return
        length = max(length // 2, LEAST_AUTOMATIC)


def _placement(plan: Plan, spec: LoadSpec, machine: Machine) -> Placement:
    assert spec.cells is not None
    shape = plan.files.shape
    wanted = memory.need(
        shape,
        cells=spec.cells,
        num_batch=spec.num_batch,
        kv_type=spec.kv_type,
        flash=spec.flash_attn != "off",
        embedding=spec.embedding,
    )
    options = plan.options
    wishes = Wishes(
        options.num_gpu,
        options.main_gpu,
        machine.reserve,
        machine.spread,
        spec.tensor_split,
        single=spec.split_mode == "none",
    )
    return place(shape, wanted, machine.gpus, wishes)


def _whole(plan: Plan, contexts: Sequence[LoadSpec], machine: Machine, floor: int) -> Load | None:
    """The most generous load that has all its layers where they should be."""
    for spec in contexts:
        if spec.num_ctx < floor:
            return None
        placement = _placement(plan, spec, machine)
        if placement.whole and placement.fits and placement.ram <= machine.ram:
            return _load(plan, spec, placement)
    return None


def _in_parts(
    plan: Plan, contexts: Sequence[LoadSpec], machine: Machine, movable: Sequence[Neighbour]
) -> Verdict:
    """It would not be whole on an empty GPU: it gets all there is, with the shortest context."""
    spec = contexts[-1]
    emptied = _without(machine, movable)
    least = _placement(plan, spec, emptied)
    if least.ram > emptied.ram:
        # Nobody has to go for a model that would not fit with all of them gone.
        return Short(_too_large(least, machine), least.ram - machine.ram)
    if machine.gpus and plan.options.num_gpu != 0 and any(each.vram for each in movable):
        return Evict("not enough GPU memory", from_gpu=True)
    placement = _placement(plan, spec, machine)
    if placement.ram <= machine.ram:
        return _load(plan, spec, placement)
    missing = placement.ram - machine.ram
    why = _too_large(placement, machine)
    return Evict(why, from_gpu=False, missing=missing) if movable else Short(why, missing)


def _too_large(placement: Placement, machine: Machine) -> str:
    needed, there = gib(placement.ram), gib(max(machine.ram, 0))
    return f"model requires more system memory ({needed}) than is available ({there})"


def _evict(
    plan: Plan, contexts: Sequence[LoadSpec], machine: Machine, floor: int, movable: Sequence[Neighbour]
) -> Evict:
    """Which kind of memory it is that is short."""
    with_ram = _whole(plan, contexts, replace(machine, ram=1 << 62), floor)
    if with_ram is None:
        return Evict("not enough GPU memory", from_gpu=any(each.vram for each in movable))
    missing = with_ram.placement.ram - machine.ram
    return Evict("not enough main memory", from_gpu=False, missing=missing)


def _without(machine: Machine, leaving: Sequence[Neighbour]) -> Machine:
    """The machine after these have left."""
    gpus = [
        replace(gpu, free=min(gpu.total, gpu.free + sum(each.vram.get(gpu.index, 0) for each in leaving)))
        for gpu in machine.gpus
    ]
    return replace(machine, gpus=gpus, ram=machine.ram + sum(each.ram for each in leaving))


def _load(plan: Plan, spec: LoadSpec, placement: Placement) -> Load:
    main = placement.main_gpu if plan.options.main_gpu is None else plan.options.main_gpu
    split = spec.tensor_split or placement.tensor_split
    return Load(replace(spec, num_gpu=placement.num_gpu, main_gpu=main, tensor_split=split), placement)


def gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"

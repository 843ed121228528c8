"""Memory for models: who gets how much of it, and who leaves for whom.

Guarantees: the decision is taken for one model at a time, which lets others by while it waits for somebody to
end; no byte is promised twice; a model in use is never evicted; the least recently used idle one goes first;
memory of a stopped runner has come back before it is given out again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler import memory
from llm_engine.scheduler.crashes import Crashes
from llm_engine.scheduler.devices import Gpus
from llm_engine.scheduler.errors import Abandoned, LoadCrashed, LoadError, ShuttingDown
from llm_engine.scheduler.fit import Load, Machine, Neighbour, Short, beside, decide
from llm_engine.scheduler.ledger import Ledger
from llm_engine.scheduler.observer import Observer
from llm_engine.scheduler.plan import Defaults, Plan, spec_for
from llm_engine.scheduler.process import Exit, RunnerError
from llm_engine.scheduler.residency import Residency, State, Waiter

log = logging.getLogger("llm_engine.scheduler")
VRAM_RETURN_SECONDS = 5.0
# Drivers keep a little for themselves: this much of what a model had counts as all of it.
RETURNED = 0.9
RAM_MARGIN = 64 << 20
# A model for which a GPU had less room than was reckoned leaves this part of it alone.
CAUTION = 8
# How long a runner may take to give parked memory back: it does so between two turns.
UNPARK_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """The server's settings as far as they decide who is loaded."""

    max_queue: int = 512
    max_loaded_models: int = 0
    keep_alive: float = 300.0
    load_timeout: float = 300.0
    gpu_overhead: int = 0
    spread: bool = False


@dataclass(eq=False)
class _Behind:
    """A load whose turn it is not; who has the turn may give it a place beside the model he waits for."""

    residency: Residency
    waiter: Waiter
    spec: asyncio.Future[LoadSpec]


class Room:
    """What residencies ask: may I load, I have loaded, I am gone."""

    def __init__(
        self,
        defaults: Defaults,
        limits: Limits,
        observer: Observer,
        gpus: Gpus,
        ram: Callable[[], int],
    ) -> None:
        self.defaults = defaults
        self.limits = limits
        self.observer = observer
        self.gpus = gpus
        self.residencies: dict[str, Residency] = {}
        self.closing = False
        self._ram = ram
        self._ledger = Ledger()
        self._crashes = Crashes()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._asked: list[Residency] = []
        """Who was asked to go for the model whose turn it is."""
        self._behind: list[_Behind] = []
        self._before: dict[str, int] = {}

    # -- coming -------------------------------------------------------------------------------------------

    def admit(self, residency: Residency) -> None:
        """Raises where nobody has to go for it, as it would not stay."""
        self._crashes.check(residency.key)

    async def make_room(self, residency: Residency, waiter: Waiter) -> LoadSpec:
        """Evicts until the plan fits; returns how to load it."""
        behind = _Behind(residency, waiter, asyncio.get_running_loop().create_future())
        if not await self._my_turn(behind):
            return behind.spec.result()
        self._asked = []
        try:
            return await self._make_room(residency, waiter)
        finally:
            for other in self._asked:  # who is still there need not go any more
                other.evict = False
                other.wake()
            self._turn.release()

    async def _my_turn(self, behind: _Behind) -> bool:
        """Waits for the turn; False where a place was given before it came."""
        turn = asyncio.ensure_future(self._turn.acquire())
        self._behind.append(behind)
        mine = False
        try:
            await asyncio.wait((turn, behind.spec), return_when=asyncio.FIRST_COMPLETED)
            mine = not behind.spec.done()
            return mine
        finally:
            self._behind.remove(behind)
            if not mine and turn.done() and not turn.cancelled():
                self._turn.release()
            elif not mine:
                turn.cancel()

    def _let_by(self, room: Machine, gpus: Sequence[memory.Gpu]) -> None:
        """Give the first of those behind a place that fits into what the model in turn will not need: it may
        wait long for somebody to end."""
        for behind in self._behind:
            plan = behind.waiter.plan
            if behind.spec.done() or not len(behind.residency.queue) or not plan.files.shape.layers:
                continue
            verdict = decide(plan, spec_for(plan, self.defaults), room, ())
            # One that would go to main memory in parts for it does better to wait.
            if isinstance(verdict, Load) and (verdict.placement.whole or not room.gpus):
                self._promise(behind.residency, verdict, gpus)
                behind.spec.set_result(verdict.spec)
                return

    async def _make_room(self, residency: Residency, waiter: Waiter) -> LoadSpec:
        while True:
            if self.closing:
                raise ShuttingDown
            if not len(residency.queue):
                raise Abandoned
            gpus = await self._gpus_for(waiter.plan)
            others = [
                other for other in self.residencies.values() if other is not residency and other.occupies
            ]
            limit = self.limits.max_loaded_models or 3 * max(self.gpus.known, 1)
            if len(others) >= limit:
                await self._evict_one(others, f"{limit} models are loaded", waiter)
                continue
            spec = spec_for(waiter.plan, self.defaults)
            if not waiter.plan.files.shape.layers:
                return spec
            machine = self._machine(residency, others, self._ledger.available(gpus))
            verdict = decide(waiter.plan, spec, machine, _neighbours(others))
            if isinstance(verdict, Load):
                self._promise(residency, verdict, gpus)
                return verdict.spec
            if verdict.missing and await _unpark(others, verdict.missing):
                continue
            if isinstance(verdict, Short):
                held = bool(others) and all(other.pinned for other in others)
                pinned = ", and all loaded models are pinned" if held else ""
                raise LoadError(f"{verdict.why}{pinned}")
            if len(others) + 2 <= limit and self._behind:
                going = sorted(others, key=lambda other: (other not in self._asked, other.last_used))
                leaving = _neighbours([other for other in going if not other.pinned])
                rooms = (
                    beside(waiter.plan, spec, machine, leaving[:count])
                    for count in range(1, len(leaving) + 1)
                )
                if room := next(filter(None, rooms), None):
                    self._let_by(room, gpus)
            holders = [other for other in others if other.vram] if verdict.from_gpu else others
            await self._evict_one(holders, verdict.why, waiter)

    def _machine(
        self, residency: Residency, others: Sequence[Residency], gpus: Sequence[memory.Gpu]
    ) -> Machine:
        reserve = self.limits.gpu_overhead
        if residency.cautious:
            reserve += max((gpu.total // CAUTION for gpu in gpus), default=0)
        promised = sum(_still_to_come(other) + _mapped(other) for other in others)
        return Machine(gpus, self._ram() - promised - RAM_MARGIN, reserve, self.limits.spread)

    def _promise(self, residency: Residency, load: Load, gpus: Sequence[memory.Gpu]) -> None:
        residency.reserved = max(load.placement.ram, 1)
        residency.vram = load.placement.vram
        residency.maps = load.spec.mmap is not False  # None: the runner decides, and may map
        if residency.vram:
            self._ledger.promise(residency, residency.vram, gpus)

    async def _gpus_for(self, plan: Plan) -> Sequence[memory.Gpu]:
        """Without the GPU that was there at start a model would run, many times slower: that is an error."""
        look = await self.gpus.look()
        if look.lost and plan.options.num_gpu != 0:
            if not look.gpus:
                raise LoadError(
                    f"gpu lost: {look.lost}; the model is not loaded without it "
                    "(num_gpu 0 loads it on the CPU)"
                )
            log.error("loading with fewer GPUs than at start", extra={"data": {"gpu": look.lost}})
        return look.gpus

    async def _evict_one(self, others: Sequence[Residency], why: str, waiter: Waiter) -> None:
        """Asks the least recently used model to go, an idle one if there is one, and waits for any change."""
        candidates = [other for other in others if not other.pinned]
        if not candidates:
            raise LoadError(f"no room for another model: {why}, and all loaded models are pinned")
        self._changed.clear()
        # One that is on its way out may take its time; another one must not go in its stead.
        if not any(other.leaving for other in others):
            idle = [other for other in candidates if _idle(other)]
            chosen = min(idle or candidates, key=lambda other: other.last_used)
            if not chosen.evict and chosen.state is State.READY:
                chosen.evict = True
                self._asked.append(chosen)
                data = {"request_id": waiter.tag, "model": chosen.name, "for": waiter.plan.name, "why": why}
                log.info("evicting", extra={"data": data})
            chosen.wake()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), 0.5)

    def loaded(self, residency: Residency) -> None:
        self._ledger.loaded(residency)
        residency.vram = _measured(residency)
        self._changed.set()
        self.observer.loaded(residency.name, residency.load_seconds)

    def load_failed(self, residency: Residency, error: Exception) -> None:
        self.observer.load_failed(residency.name)
        if isinstance(error, LoadCrashed):
            self._crashes.note(residency.key, str(error))

    # -- leaving ------------------------------------------------------------------------------------------

    async def leaving(self, residency: Residency) -> None:
        """Notes what is free before it goes, to know when all of it has come back."""
        if residency.evict:
            self.observer.evicted(residency.name)
        if residency.vram and self.gpus.known:
            self._before[residency.key] = sum(gpu.free for gpu in (await self.gpus.look()).gpus)

    async def freed(self, residency: Residency) -> None:
        """A runner has ended; its main memory is back with the process, GPU memory may take a moment."""
        before = self._before.pop(residency.key, None)
        info = residency.process.info if residency.process is not None else None
        if residency.vram:
            measured = info.size_vram if info is not None else 0
            await self._vram_back(None if before is None else before + int(measured * RETURNED))
            if info is not None:
                self._ledger.came_back(residency.vram)
        self._ledger.given_up(residency)
        residency.reserved, residency.vram = 0, {}
        self._changed.set()

    async def _vram_back(self, expected: int | None) -> None:
        """Until the GPUs have as much free memory as is expected; where nobody knows how much that is, until
        it stands still. A few seconds at most: others may be taking it."""
        deadline = time.monotonic() + VRAM_RETURN_SECONDS
        before = -1
        while time.monotonic() < deadline:
            free = sum(gpu.free for gpu in (await self.gpus.look()).gpus)
            if free >= expected if expected is not None else free == before:
                return
            before = free
            await asyncio.sleep(0.1)

    def crashed(self, residency: Residency, end: Exit, lived: float) -> None:
        self.observer.crashed(residency.name)
        refused = self._crashes.note(residency.key, end.reason, lived)
        data = {
            "model": residency.name,
            "reason": end.reason,
            "last_lines": list(end.last_lines),
            "refused_for": refused,
        }
        log.error("runner ended", extra={"data": data})

    def gone(self, residency: Residency) -> None:
        if self.residencies.get(residency.key) is residency:
            del self.residencies[residency.key]
        self._ledger.given_up(residency)
        self._changed.set()


def _idle(residency: Residency) -> bool:
    return not residency.busy and not len(residency.queue)


def _neighbours(others: Sequence[Residency]) -> list[Neighbour]:
    return [
        Neighbour(
            idle=_idle(other),
            pinned=other.pinned,
            vram=other.vram,
            ram=_gives_back(other),
        )
        for other in others
    ]


def _gives_back(other: Residency) -> int:
    """Main memory that is free once it has left: as reckoned, or as llama.cpp says, whichever is more. Of one
    that is being loaded, what it has taken and what is kept for it."""
    info = other.process.info if other.process is not None else None
    return max(other.reserved, info.size - info.size_vram if info is not None else 0)


def _mapped(other: Residency) -> int:
    """Weights that are mapped from their file. The system counts their pages as free, as it could read them
    again; a model that had to do so for every token would not be a loaded one."""
    info = other.process.info if other.process is not None else None
    return sum(size for device, size in info.memory.items() if "Mapped" in device) if info else 0


def _measured(residency: Residency) -> dict[int, int]:
    """What it took of each GPU: what llama.cpp says, shared out as was reckoned."""
    info = residency.process.info if residency.process is not None else None
    reckoned = sum(residency.vram.values())
    if info is None or not info.size_vram or not reckoned:
        return dict(residency.vram)
    taken = info.size_vram + memory.GPU_RESERVE * len(residency.vram)
    return {index: size * taken // reckoned for index, size in residency.vram.items()}


def _still_to_come(other: Residency) -> int:
    """Memory that a model being loaded beside us will take, but has not yet."""
    if other.state is not State.LOADING:
        return 0
    if other.maps:  # what is read is not taken, see `_mapped`, and the cache comes last
        return other.reserved
    return int(other.reserved * (1 - other.progress))


async def _unpark(others: Sequence[Residency], missing: int) -> bool:
    """Prefixes that nobody uses make way before models do."""
    freed = 0
    for other in sorted(others, key=lambda other: other.last_used):
        if other.process is not None and freed < missing:
            with contextlib.suppress(RunnerError, TimeoutError):
                freed += await asyncio.wait_for(other.process.unpark(missing - freed), UNPARK_SECONDS)
    return freed > 0

"""Which models are in memory, and who may use them.

    async with scheduler.use(files, options, keep_alive, client) as lease:
        async for event in lease.runner.generate(...): ...

Loads of different models run side by side; only the decision whether there is room is taken by one at a time.
Guarantees: at most `max_queue` requests wait, whatever they wait for; a model in use is never evicted; the
least recently used idle one goes first; memory of a stopped runner has come back before it is given out
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llm_engine.runner.messages import LoadSpec
from llm_engine.runner.room import available_ram
from llm_engine.scheduler import memory
from llm_engine.scheduler.devices import Gpus
from llm_engine.scheduler.errors import Busy, LoadError, ShuttingDown
from llm_engine.scheduler.observer import Observer
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import Defaults, ModelFiles, Plan, make_plan, spec_for
from llm_engine.scheduler.process import LoadFailed, RunnerError, RunnerProcess
from llm_engine.scheduler.residency import Residency, Starter, State, Waiter

log = logging.getLogger("llm_engine.scheduler")
VRAM_RETURN_SECONDS = 5.0
RAM_MARGIN = 64 << 20
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


@dataclass
class Lease:
    """The right to use a loaded model until the `async with` ends."""

    runner: RunnerProcess
    spec: LoadSpec
    load_seconds: float
    """How long this request waited for a load; 0 when the model was there."""
    wait_seconds: float
    keep_alive: float


async def start_runner(spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
    try:
        return await RunnerProcess.start(spec, on_progress=on_progress)
    except LoadFailed as error:
        raise LoadError(str(error)) from error


class Scheduler:
    def __init__(
        self,
        defaults: Defaults | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        start: Starter = start_runner,
        gpus: Gpus | None = None,
        ram: Callable[[], int] = available_ram,
    ) -> None:
        self._ram = ram
        self.gpus = gpus or Gpus()
        self.defaults = replace(defaults or Defaults(), gpus=self.gpus.known)
        self.limits = limits or Limits()
        self.observer = observer or Observer()
        self._start = start
        self._residencies: dict[str, Residency] = {}
        self._waiting = 0
        self._room = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = False

    # -- using models -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def use(
        self,
        files: ModelFiles,
        options: RunnerOptions | None = None,
        keep_alive: float | None = None,
        client: str = "",
        tag: str = "",
    ) -> AsyncIterator[Lease]:
        """Waits until the model is loaded as asked and has a free slot. `tag` names the request where the
        queue is looked at."""
        seconds = self.limits.keep_alive if keep_alive is None else keep_alive
        plan = make_plan(files, options or RunnerOptions(), self.defaults, seconds)
        residency, lease = await self._acquire(plan, client, tag)
        try:
            yield lease
        finally:
            residency.release(seconds)

    async def _acquire(self, plan: Plan, client: str, tag: str) -> tuple[Residency, Lease]:
        if self._closing:
            raise ShuttingDown
        residency = self._residency(plan)
        immediate = (
            residency.state is State.READY and not len(residency.queue) and residency.active < residency.slots
        )
        if not immediate and self._waiting >= self.limits.max_queue:
            self.observer.rejected(plan.name)
            raise Busy(self._waiting, self.retry_after())
        waiter = Waiter(plan, client, tag)
        started = time.monotonic()
        self._waiting += 1
        residency.join(waiter)
        try:
            runner = await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                residency.release(plan.keep_alive)  # granted in the very moment in which the client went
            residency.leave(waiter)
            raise
        finally:
            self._waiting -= 1
        residency.names[plan.name] = time.monotonic()
        waited = time.monotonic() - started
        self.observer.waited(plan.name, waited)
        assert residency.spec is not None
        loaded_now = residency.load_started >= started
        load = residency.load_seconds if loaded_now else 0.0
        return residency, Lease(runner, residency.spec, load, waited, plan.keep_alive)

    def _residency(self, plan: Plan) -> Residency:
        key = plan.files.key
        residency = self._residencies.get(key)
        if residency is None:
            residency = Residency(key, self, self._start, self.limits.load_timeout)
            self._residencies[key] = residency
        residency.names.setdefault(plan.name, time.monotonic())
        return residency

    def retry_after(self) -> int:
        """A guess at when a place will be free: the time an average wait takes, 1 to 30 seconds."""
        return max(1, min(30, round(self.observer.mean_wait())))

    async def unload(self, key: str) -> bool:
        """Lets a model go: at once when idle (and then waits until it is gone), else after its last user."""
        residency = self._residencies.get(key)
        if residency is None:
            return False
        residency.keep_alive = 0.0
        residency.pinned = False
        residency.last_used = float("-inf")
        residency.wake()
        if not residency.active and not len(residency.queue) and residency.state is not State.LOADING:
            await asyncio.wait({residency.task}, timeout=30)
        return True

    def keep(self, key: str) -> None:
        """Pins a loaded or loading model: never evicted, never expired."""
        if residency := self._residencies.get(key):
            residency.pinned = True

    # -- looking ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return self._waiting

    def residencies(self) -> Iterator[Residency]:
        """As they are now: whoever asks may be a thread that writes metrics."""
        return iter(list(self._residencies.values()))

    def positions(self) -> dict[str, int]:
        """The place of each waiting request in the queue of its model, from 1, by its tag."""
        return {
            waiter.tag: at
            for residency in self.residencies()
            for at, waiter in enumerate(residency.queue, 1)
            if waiter.tag
        }

    def distrust(self, runner: RunnerProcess) -> None:
        """Has a runner that cannot be relied on any more replaced, once nobody uses it."""
        for residency in self.residencies():
            if residency.process is runner:
                residency.evict = True
                residency.wake()

    def find(self, key: str) -> Residency | None:
        return self._residencies.get(key)

    # -- what residencies ask -----------------------------------------------------------------------------

    async def make_room(self, residency: Residency, plan: Plan) -> LoadSpec:
        """Evicts until the plan fits; returns how to load it. One at a time, so that room is not given
        twice."""
        async with self._room:
            gpus = await self._gpus_for(plan)
            while True:
                others = [
                    other for other in self._residencies.values() if other is not residency and other.occupies
                ]
                limit = self.limits.max_loaded_models or 3 * max(self.gpus.known, 1)
                spec, short, missing = self._fit(residency, plan, others, gpus)
                if len(others) < limit and spec is not None:
                    return spec
                if spec is None and await _unpark(others, missing):
                    continue
                if not others and spec is None:
                    raise LoadError(short)
                if self._closing:
                    raise ShuttingDown
                await self._evict_one(others, short if len(others) < limit else f"{limit} models are loaded")
                gpus = (await self.gpus.look()).gpus

    def _fit(
        self, residency: Residency, plan: Plan, others: list[Residency], gpus: Sequence[memory.Gpu]
    ) -> tuple[LoadSpec | None, str, int]:
        """The spec that fits now, or why none does and how many bytes of main memory are missing."""
        spec = spec_for(plan, self.defaults)
        shape = plan.files.shape
        if not shape.layers:
            return spec, "", 0
        reserved = sum(_still_to_come(other) for other in others)
        text, missing = "", 0
        # Fewer parallel sequences need less cache; one must fit.
        wish = spec.cells or spec.num_ctx * spec.num_parallel
        for cells in sorted({wish, min(wish, spec.num_ctx)}, reverse=True):
            wanted = memory.need(shape, cells=cells, num_batch=spec.num_batch, kv_type=spec.kv_type)
            placement = memory.place(
                shape,
                wanted,
                gpus,
                reserve=self.limits.gpu_overhead,
                num_gpu=plan.options.num_gpu,
                spread=self.limits.spread,
            )
            free = self._ram() - reserved - RAM_MARGIN
            ram = placement.ram
            if ram <= free:
                residency.reserved = max(ram, 1)
                return _placed(spec, cells, placement, plan), "", 0
            missing = ram - free
            text = f"model requires more system memory ({_gib(ram)}) than is available ({_gib(max(free, 0))})"
        return None, text, missing

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

    async def _evict_one(self, others: list[Residency], why: str) -> None:
        """Asks the least recently used model to go, an idle one if there is one, and waits for any change."""
        candidates = [other for other in others if not other.pinned]
        if not candidates:
            raise LoadError(f"no room for another model: {why}, and all loaded models are pinned")
        self._changed.clear()
        # One that is on its way out may take its time; another one must not go in its stead.
        if not any(other.leaving for other in others):
            idle = [other for other in candidates if not other.busy and not len(other.queue)]
            chosen = min(idle or candidates, key=lambda other: other.last_used)
            if not chosen.evict and chosen.state is State.READY:
                chosen.evict = True
                self.observer.evicted(_name(chosen))
                log.info("evicting", extra={"data": {"model": _name(chosen), "why": why}})
            chosen.wake()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), 0.5)

    async def freed(self, residency: Residency) -> None:
        """A runner has ended; its main memory is back with the process, GPU memory may take a moment."""
        residency.reserved = 0
        if self.gpus.known and residency.spec is not None and residency.spec.num_gpu != 0:
            await self._vram_back()
        self._changed.set()

    async def _vram_back(self) -> None:
        """Until the free memory of the GPUs stands still, for a few seconds at most."""
        deadline = time.monotonic() + VRAM_RETURN_SECONDS
        before = -1
        while time.monotonic() < deadline:
            free = sum(gpu.free for gpu in (await self.gpus.look()).gpus)
            if free == before:
                return
            before = free
            await asyncio.sleep(0.1)

    def loaded(self, residency: Residency) -> None:
        self._changed.set()
        self.observer.loaded(_name(residency), residency.load_seconds)

    def load_failed(self, residency: Residency) -> None:
        self.observer.load_failed(_name(residency))

    def crashed(self, residency: Residency, reason: str) -> None:
        self.observer.crashed(_name(residency))
        log.error("runner ended", extra={"data": {"model": _name(residency), "reason": reason}})

    def gone(self, residency: Residency) -> None:
        if self._residencies.get(residency.key) is residency:
            del self._residencies[residency.key]
        self._changed.set()

    # -- the end ------------------------------------------------------------------------------------------

    async def close(self, grace: float) -> None:
        """Nobody new gets in; those inside have `grace` seconds; then every runner is stopped."""
        self._closing = True
        tasks = []
        for residency in list(self._residencies.values()):
            residency.closing = True
            residency.wake()
            tasks.append(residency.task)
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for residency in list(self._residencies.values()):
            if residency.process is not None:
                await residency.process.stop(1.0)
            residency.wake()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=5)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _unpark(others: list[Residency], missing: int) -> bool:
    """Prefixes that nobody uses make way before models do."""
    freed = 0
    for other in sorted(others, key=lambda other: other.last_used):
        if other.process is not None and freed < missing:
            with contextlib.suppress(RunnerError, TimeoutError):
                freed += await asyncio.wait_for(other.process.unpark(missing - freed), UNPARK_SECONDS)
    return freed > 0


def _name(residency: Residency) -> str:
    return next(iter(residency.names), residency.key)


def _still_to_come(other: Residency) -> int:
    """Memory that a model being loaded beside us will take, but has not yet."""
    if other.state is not State.LOADING:
        return 0
    return int(other.reserved * (1 - other.progress))


def _placed(spec: LoadSpec, cells: int, placement: memory.Placement, plan: Plan) -> LoadSpec:
    return replace(
        spec,
        cells=cells,
        num_gpu=placement.num_gpu if placement.num_gpu or plan.options.num_gpu is not None else 0,
        main_gpu=placement.main_gpu if plan.options.main_gpu is None else plan.options.main_gpu,
        tensor_split=spec.tensor_split or placement.tensor_split,
    )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"

"""One model's place in memory: loaded or not, who uses it, who waits for it, and when it leaves.

A single task owns each residency and takes every decision about it; requests only queue up and wake that
task. So there are no locks, and no state in which nobody is responsible. Invariants:
 - a runner is stopped only while nobody uses it;
 - a waiter is granted, failed, or gone because its client went; never forgotten;
 - the runner's process is dead before its memory counts as free.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from llm_engine.durations import FOREVER
from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler.errors import (
    Abandoned,
    LoadCrashed,
    LoadError,
    SchedulerError,
    ShuttingDown,
    Unloaded,
)
from llm_engine.scheduler.fairqueue import FairQueue
from llm_engine.scheduler.plan import Plan, satisfies
from llm_engine.scheduler.process import Exit, RunnerProcess

log = logging.getLogger("llm_engine.scheduler")
STOP_GRACE = 2.0
# What llama.cpp and CUDA say when a buffer cannot be had.
_MEMORY = re.compile(r"alloc|out of memory|no memory", re.IGNORECASE)


class State(Enum):
    EMPTY = "empty"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


class Landlord(Protocol):
    """What a residency asks of the scheduler."""

    def admit(self, residency: Residency) -> None: ...

    async def make_room(self, residency: Residency, waiter: Waiter) -> LoadSpec: ...

    async def leaving(self, residency: Residency) -> None: ...

    async def freed(self, residency: Residency) -> None: ...

    def loaded(self, residency: Residency) -> None: ...

    def load_failed(self, residency: Residency, error: Exception) -> None: ...

    def crashed(self, residency: Residency, end: Exit, lived: float) -> None: ...

    def gone(self, residency: Residency) -> None: ...


Starter = Callable[[LoadSpec, Callable[[float], None]], Awaitable[RunnerProcess]]


@dataclass(eq=False)
class Waiter:
    plan: Plan
    client: str
    tag: str = ""
    keep_alive: float | None = None
    """How long the model stays after this request; None: as it was told before."""
    load_only: bool = False
    """It wants the model to be there and nothing of it, so an order to leave answers it."""
    slotless: bool = False
    """Nothing is generated for it (it tokenizes, or counts), so it waits for nobody's answer to end."""
    orders: int = 0
    """The orders to leave that the model had been given when this one came."""
    since: float = field(default_factory=time.monotonic)
    granted: asyncio.Future[RunnerProcess] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Residency:
    def __init__(
        self, key: str, landlord: Landlord, start: Starter, load_timeout: float, keep_alive: float
    ) -> None:
        self.key = key
        self.landlord = landlord
        self.start = start
        self.load_timeout = load_timeout
        self.default_keep_alive = keep_alive
        self.state = State.EMPTY
        self.process: RunnerProcess | None = None
        self.spec: LoadSpec | None = None
        self.plan: Plan | None = None
        self.queue: FairQueue[Waiter] = FairQueue()
        self.names: dict[str, float] = {}
        self.last_name = ""
        self.active = 0
        self.slotless = 0
        """Those of the active ones that take no slot."""
        self.keep_alive = keep_alive
        self.orders = 0
        self.automatic_ctx: int | None = None
        self.cautious = False
        """Whether its first attempt failed for want of GPU memory."""
        self.pinned = False
        self.last_used = time.monotonic()
        self.load_started = 0.0
        self.load_seconds = 0.0
        self.progress = 0.0
        self.reserved = 0
        self.maps = True
        """Whether its weights are mapped from their file."""
        self.vram: Mapping[int, int] = {}
        """Bytes by GPU that it was promised."""
        self.evict = False
        """Whether it was asked to make room."""
        self.distrusted = False
        """Whether its runner is to be replaced."""
        self.closing = False
        self.unloaded = asyncio.Event()
        """Set when its memory has come back; cleared when it is loaded again."""
        self._wake = asyncio.Event()
        # The task outlives the request that came first, so nothing of that request's may cling to it.
        self.task = asyncio.create_task(
            self._own(), name=f"residency {key[-12:]}", context=contextvars.Context()
        )

    # -- what requests do ---------------------------------------------------------------------------------

    def join(self, waiter: Waiter) -> None:
        waiter.orders = self.orders
        self.queue.push(waiter.client, waiter)
        self.wake()

    def leave(self, waiter: Waiter) -> None:
        self.queue.remove(waiter.client, waiter)
        self.wake()

    def release(self, waiter: Waiter) -> None:
        self.active -= 1
        self.slotless -= waiter.slotless
        self.last_used = time.monotonic()
        self.wake()

    def order_out(self) -> None:
        """It leaves as soon as nobody uses it; who came before the order cannot take it back. A load that
        nobody waits for any more is given up."""
        self.orders += 1
        self.keep_alive = 0.0
        self.pinned = False
        for waiter in list(self.queue):
            if waiter.load_only and not waiter.granted.done():
                self.queue.remove(waiter.client, waiter)
                waiter.granted.set_exception(Unloaded())
        self.wake()

    def disown(self, name: str) -> None:
        """The name belongs to other files now, or to none. Without a name nobody can ask for it."""
        if self.names.pop(name, None) is not None and not self.names:
            self.order_out()

    def wake(self) -> None:
        self._wake.set()

    # -- what others may read -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return next(iter(self.names), self.last_name or self.key)

    @property
    def ready(self) -> bool:
        """Whether whoever comes now gets it at once, if it is loaded as they want it."""
        return self.up and not len(self.queue) and self.free_slot

    @property
    def up(self) -> bool:
        process = self.process
        return self.state is State.READY and not self.going and process is not None and process.alive

    @property
    def free_slot(self) -> bool:
        return self.active - self.slotless < self.slots

    def suits(self, plan: Plan) -> bool:
        if self.spec is None or self.plan is None:
            return False
        return satisfies(self.plan, self.spec, plan, self.automatic_ctx)

    @property
    def slots(self) -> int:
        return self.spec.num_parallel if self.spec else 0

    @property
    def busy(self) -> bool:
        return self.active > 0 or self.state in (State.LOADING, State.STOPPING)

    @property
    def going(self) -> bool:
        return self.evict or self.distrusted

    @property
    def leaving(self) -> bool:
        """Whether its memory will come back without anybody having to end first."""
        return self.state is State.STOPPING or (self.going and not self.active)

    @property
    def occupies(self) -> bool:
        """Whether it holds memory, or was promised some."""
        return self.process is not None or self.reserved > 0

    def expires_in(self) -> float:
        """Seconds until it leaves if nobody comes; FOREVER where it stays."""
        if self.pinned:
            return FOREVER
        if self.active or self.state is State.LOADING:
            return max(self.keep_alive, 0.0)
        return max(self.last_used + self.keep_alive - time.monotonic(), 0.0)

    # -- the owner ----------------------------------------------------------------------------------------

    async def _own(self) -> None:
        over: SchedulerError = ShuttingDown()
        try:
            while True:
                self._wake.clear()
                await self._step()
                if self.state is State.EMPTY and not len(self.queue):
                    break
                await self._sleep()
        except Exception as error:
            log.exception("the scheduler failed", extra={"data": {"model": self.name}})
            over = LoadError(f"the scheduler failed: {error!r}")
            if self.process is not None:
                await self.process.stop(STOP_GRACE)
        finally:
            self._fail_all(over)  # nobody is responsible for them any more
            self.unloaded.set()
            self.landlord.gone(self)

    async def _sleep(self) -> None:
        timeout = None
        if self.state is State.READY and not self.active and not len(self.queue):
            left = self.expires_in()
            timeout = None if left == FOREVER else left
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)

    async def _step(self) -> None:
        process = self.process
        if process is not None and process.exited.done():
            await self._bury(process)
        while waiter := self.queue.peek():
            if self.closing:
                self._fail_all(ShuttingDown())
                break
            if self.state is State.READY and self.going:
                break
            if self.state is State.EMPTY:
                await self._load(waiter)
            elif not self.suits(waiter.plan):
                if self.active:
                    return
                await self._unload("reload")
            elif self.free_slot:
                self._grant(waiter)
            else:
                self._grant_slotless()
                return
        if self.state is State.READY and not self.active and (self.going or self.closing or self._expired()):
            await self._unload("evicted" if self.evict else "distrusted" if self.distrusted else "expired")
            if len(self.queue):
                self.wake()

    def _expired(self) -> bool:
        return not len(self.queue) and self.expires_in() <= 0

    def _grant_slotless(self) -> None:
        """Past those who wait for a slot."""
        for waiter in [each for each in self.queue if each.slotless and self.suits(each.plan)]:
            self._grant(waiter)

    def _grant(self, waiter: Waiter) -> None:
        self.queue.take(waiter.client, waiter)
        assert self.process is not None
        if waiter.granted.done():
            return
        self.active += 1
        self.slotless += waiter.slotless
        if waiter.orders == self.orders:
            self.last_used = time.monotonic()
            if waiter.keep_alive is not None:
                self.keep_alive = waiter.keep_alive
        waiter.granted.set_result(self.process)

    def _fail_all(self, error: SchedulerError) -> None:
        while waiter := self.queue.pop():
            if not waiter.granted.done():
                waiter.granted.set_exception(error)

    async def _load(self, waiter: Waiter) -> None:
        plan = waiter.plan
        try:
            self.landlord.admit(self)
        except SchedulerError as error:
            self._fail_all(error)
            return
        self.state = State.LOADING
        self.load_started = time.monotonic()
        self.progress = 0.0
        self.unloaded.clear()
        try:
            spec, process = await self._fit_and_start(waiter)
        except Abandoned:
            log.info("load given up", extra={"data": {"model": plan.name, "at": round(self.progress, 3)}})
            await self._came_to_nothing()
            return
        except Exception as error:  # whatever it was, those who wait have to hear of it
            self.landlord.load_failed(self, error)
            known = isinstance(error, SchedulerError)
            data: dict[str, Any] = {"request_id": waiter.tag, "model": plan.name, "reason": str(error)}
            if isinstance(error, LoadCrashed):
                data["last_lines"] = list(error.last_lines)
            log.warning(
                "load failed",
                extra={"data": data},
                exc_info=None if known else error,
            )
            self._fail_all(error if isinstance(error, SchedulerError) else LoadError(_unforeseen(error)))
            await self._came_to_nothing()
            return
        self.process, self.plan = process, plan
        self.spec = replace(spec, mmap=process.info.mapped)
        if plan.automatic:
            self.automatic_ctx = spec.num_ctx
        self.load_seconds = time.monotonic() - self.load_started
        if waiter.orders == self.orders:
            self.last_used = time.monotonic()
            self.keep_alive = self.default_keep_alive if waiter.keep_alive is None else waiter.keep_alive
        self.state = State.READY
        self.evict = False
        process.exited.add_done_callback(lambda _: self.wake())
        self.landlord.loaded(self)

    async def _came_to_nothing(self) -> None:
        self.state = State.EMPTY
        await self.landlord.freed(self)
        self.unloaded.set()

    async def _fit_and_start(self, waiter: Waiter) -> tuple[LoadSpec, RunnerProcess]:
        """What was reckoned for a GPU may not be enough for it: then once more, with more room."""
        self.cautious = False
        while True:
            spec = await self.landlord.make_room(self, waiter)
            try:
                return spec, await self._start(spec)
            except LoadError as error:
                if not self.vram or self.cautious or not _MEMORY.search(str(error)):
                    raise
                log.warning(
                    "the GPU had less room than was reckoned; loading once more",
                    extra={
                        "data": {
                            "request_id": waiter.tag,
                            "model": waiter.plan.name,
                            "reason": str(error),
                        }
                    },
                )
                self.cautious = True
                self.progress = 0.0
                await self.landlord.freed(self)

    async def _start(self, spec: LoadSpec) -> RunnerProcess:
        """Start the runner; a load that makes no progress for the time allowed is ended, and so is one that
        nobody waits for any more: reading on would keep memory and disk busy for minutes, for nobody."""
        moved = time.monotonic()

        def on_progress(fraction: float) -> None:
            nonlocal moved
            if fraction > self.progress:
                self.progress, moved = fraction, time.monotonic()

        task = asyncio.ensure_future(self.start(spec, on_progress))
        try:
            while not task.done():
                left = moved + self.load_timeout - time.monotonic()
                if left <= 0:
                    raise LoadError(
                        f"timed out waiting for the model to load - no progress for {self.load_timeout:g} s "
                        f"at {self.progress:.0%}"
                    )
                if self.closing:
                    raise ShuttingDown
                if not len(self.queue):
                    raise Abandoned
                self._wake.clear()
                await _first(task, self._wake.wait(), left)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _unload(self, why: str) -> None:
        process = self.process
        assert process is not None
        self.state = State.STOPPING
        await self.landlord.leaving(self)
        await process.stop(STOP_GRACE)
        await self._emptied()
        log.info("unloaded", extra={"data": {"model": self.name, "why": why}})

    async def _bury(self, process: RunnerProcess) -> None:
        """The runner ended by itself. Those who were using it see it in their streams; the next one
        reloads."""
        self.state = State.STOPPING
        if not self.closing:
            lived = time.monotonic() - self.load_started - self.load_seconds
            self.landlord.crashed(self, process.exited.result(), lived)
        await self._emptied()

    async def _emptied(self) -> None:
        """The process has ended; what it held counts as free once the GPUs say so."""
        await self.landlord.freed(self)
        self.process, self.spec = None, None
        self.evict = self.distrusted = False
        self.state = State.EMPTY
        self.unloaded.set()


async def _first(task: asyncio.Future[Any], other: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Until the task is done, or the other, which is ended with this call, or the time is over."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait({task, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _unforeseen(error: Exception) -> str:
    return f"the model could not be loaded: {type(error).__name__}: {error}"

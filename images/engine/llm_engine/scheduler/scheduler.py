"""Which models are in memory, and who may use them.

    async with scheduler.use(files, options, keep_alive, client) as lease:
        async for event in lease.runner.generate(...): ...

Loads of different models run side by side; only the decision whether there is room is taken by one at a time
(`room`). Guarantees: at most `max_queue` requests wait, whatever they wait for, and no client has all of
these places while another one comes; a name stands for the files that it has now.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

from llm_engine.runner.messages import LoadSpec
from llm_engine.runner.room import available_ram
from llm_engine.scheduler.devices import Gpus
from llm_engine.scheduler.errors import Busy, LoadCrashed, LoadError, ShuttingDown
from llm_engine.scheduler.observer import Observer
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import Defaults, ModelFiles, Plan, make_plan
from llm_engine.scheduler.process import LoadDied, LoadFailed, RunnerProcess
from llm_engine.scheduler.residency import Residency, Starter, Waiter
from llm_engine.scheduler.room import Limits, Room

UNLOAD_SECONDS = 30.0


@dataclass
class Lease:
    """The right to use a loaded model until the `async with` ends."""

    runner: RunnerProcess
    spec: LoadSpec
    load_seconds: float
    """How long this request waited for a load; 0 when the model was there."""
    wait_seconds: float
    answered: bool = False
    """Whether all that was asked for has been said; set by whoever uses it."""


async def start_runner(spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
    try:
        return await RunnerProcess.start(spec, on_progress=on_progress)
    except LoadDied as error:
        raise LoadCrashed(str(error), error.last_lines) from error
    except LoadFailed as error:
        raise LoadError(str(error)) from error
    except OSError as error:
        raise LoadError(f"no process for the model could be started: {error.strerror or error}") from error


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
        self.gpus = gpus or Gpus()
        self.defaults = replace(defaults or Defaults(), gpus=self.gpus.known)
        self.limits = limits or Limits()
        self.observer = observer or Observer()
        self._start = start
        self._room = Room(self.defaults, self.limits, self.observer, self.gpus, ram)
        self._pins: set[str] = set()
        self._waiting = 0

    # -- using models -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def use(
        self,
        files: ModelFiles,
        options: RunnerOptions | None = None,
        keep_alive: float | None = None,
        client: str = "",
        tag: str = "",
        *,
        load_only: bool = False,
        slotless: bool = False,
    ) -> AsyncIterator[Lease]:
        """Waits until the model is loaded as asked and has a free slot. `tag` names the request where the
        queue is looked at, and in the log. Without `keep_alive` the model stays as long as it was told
        before, and the time of the settings if it was told nothing. `load_only`: nothing will be asked of it,
        so an order to unload it ends the wait. `slotless`: nothing is generated, so it needs no free slot. A
        load whose last waiter goes is given up."""
        plan = make_plan(files, options or RunnerOptions(), self.defaults)
        waiter = Waiter(plan, client, tag, keep_alive, load_only, slotless or load_only)
        residency, lease = await self._acquire(waiter)
        try:
            yield lease
        finally:
            residency.release(waiter)

    async def _acquire(self, waiter: Waiter) -> tuple[Residency, Lease]:
        if self._room.closing:
            raise ShuttingDown
        plan = waiter.plan
        residency = self._residency(plan)
        immediate = (residency.up if waiter.slotless else residency.ready) and residency.suits(plan)
        if not immediate and self._waiting >= self.limits.max_queue and not self._oust(waiter.client):
            raise self._busy(plan)
        started = time.monotonic()
        self._waiting += 1
        residency.join(waiter)
        try:
            runner = await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                residency.release(waiter)  # granted in the very moment in which the client went
            residency.leave(waiter)
            raise
        finally:
            self._waiting -= 1
        waited = time.monotonic() - started
        self.observer.waited(plan.name, waited)
        assert residency.spec is not None
        loaded_now = residency.load_started >= started
        load = residency.load_seconds if loaded_now else 0.0
        return residency, Lease(runner, residency.spec, load, waited)

    def _busy(self, plan: Plan) -> Busy:
        self.observer.rejected(plan.name)
        return Busy(self._waiting, self.retry_after())

    def _oust(self, client: str) -> bool:
        """Whether somebody has a place for this client: who waits with at least two requests more than it
        would, and whose latest one is told to come back later. So nobody can take all places."""
        queues: dict[str, list[tuple[float, Residency, Waiter]]] = {}
        for residency in self.residencies():
            for each in residency.queue:
                if not each.granted.done():
                    queues.setdefault(each.client, []).append((each.since, residency, each))
        if not queues:
            return False
        greediest = max(queues, key=lambda name: len(queues[name]))
        if len(queues[greediest]) < len(queues.get(client, ())) + 2:
            return False
        _, residency, last = max(queues[greediest], key=lambda entry: entry[0])
        residency.leave(last)
        last.granted.set_exception(self._busy(last.plan))
        return True

    def _residency(self, plan: Plan) -> Residency:
        key = plan.files.key
        residency = self._room.residencies.get(key)
        if residency is None:
            limits = self.limits
            residency = Residency(key, self._room, self._start, limits.load_timeout, limits.keep_alive)
            self._room.residencies[key] = residency
        self.forget(plan.name, besides=key)
        residency.names.setdefault(plan.name, time.monotonic())
        residency.last_name = plan.name
        if plan.name in self._pins:
            residency.pinned = True
        return residency

    def retry_after(self) -> int:
        """A guess at when a place will be free: the time an average wait takes, 1 to 30 seconds."""
        return max(1, min(30, round(self.observer.mean_wait())))

    async def unload(self, files: ModelFiles) -> bool:
        """Lets a model go: at once when idle, or when nobody waits for its load with work for it (and then
        waits until its memory is back), else after its last user."""
        going = [r for r in self.residencies() if files.name in r.names or r.key == files.key]
        for residency in going:
            residency.order_out()
        idle = [r for r in going if not r.active and not len(r.queue)]
        waits = [asyncio.ensure_future(residency.unloaded.wait()) for residency in idle]
        if waits:
            _, late = await asyncio.wait(waits, timeout=UNLOAD_SECONDS)
            for wait in late:
                wait.cancel()
        return bool(going)

    def forget(self, name: str, besides: str | None = None) -> None:
        """The name stands for other files now (those of the key `besides`), or for none: what was loaded
        under it leaves, unless it has another name."""
        for residency in self.residencies():
            if residency.key != besides:
                residency.disown(name)

    def keep(self, name: str) -> None:
        """Pins a model, whenever it is loaded: never evicted, never expired. Only an order to unload it
        lets it go, until it is used again."""
        self._pins.add(name)
        if residency := self.named(name):
            residency.pinned = True

    # -- looking ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return self._waiting

    def residencies(self) -> Iterator[Residency]:
        """As they are now: whoever asks may be a thread that writes metrics."""
        return iter(list(self._room.residencies.values()))

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
                residency.distrusted = True
                residency.wake()

    def named(self, name: str) -> Residency | None:
        """What is loaded, or being loaded, under this name."""
        return next((each for each in self.residencies() if name in each.names), None)

    def find(self, key: str) -> Residency | None:
        return self._room.residencies.get(key)

    # -- the end ------------------------------------------------------------------------------------------

    async def close(self, grace: float) -> None:
        """Nobody new gets in; those inside have `grace` seconds; then every runner is stopped."""
        self._room.closing = True
        tasks = []
        for residency in self.residencies():
            residency.closing = True
            residency.wake()
            tasks.append(residency.task)
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for residency in self.residencies():
            if residency.process is not None:
                await residency.process.stop(1.0)
            residency.wake()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=5)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

"""What all handlers share: one object, made once per server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_engine.api.errors import ApiError, QueueFull
from llm_engine.api.failures import runner_error, scheduler_error
from llm_engine.api.keys import KeyRing
from llm_engine.api.metrics import Metrics
from llm_engine.api.requestlog import RequestLog
from llm_engine.api.status_types import RunningRequest
from llm_engine.models.errors import ModelsError
from llm_engine.models.registry.pull import Puller
from llm_engine.runner.messages import Stats
from llm_engine.scheduler import Lease, Scheduler
from llm_engine.scheduler.errors import SchedulerError
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import ModelFiles
from llm_engine.scheduler.process import RunnerError, RunnerProcess
from llm_engine.scheduler.residency import Residency
from llm_engine.settings import Settings

if TYPE_CHECKING:
    from llm_engine.api.endpoint import Call
    from llm_engine.api.lookup import Models


# How long a runner may take to tell of itself: it answers between two batch turns.
STATS_SECONDS = 1.0
CANCELED = 499
"""What Ollama answers where a request was canceled; clients do not try it again by themselves."""
# How the runner begins when a computation itself failed, and not what a request asked of it.
_COMPUTING = "llama.cpp failed"


@dataclass
class Running:
    """A request that has a model, or waits for one."""

    request_id: str
    client: str
    path: str
    model: str
    since: float = field(default_factory=time.monotonic)
    state: str = "waiting"
    task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    stopped: bool = False

    def stop(self) -> None:
        """End it wherever it waits; its client is told, in the shape of its API."""
        if self.task is not None and not self.stopped:
            self.stopped = True
            self.task.cancel()

    def describe(self, now: float, position: int | None) -> RunningRequest:
        return {
            "position": position,
            "request_id": self.request_id,
            "client": self.client,
            "path": self.path,
            "model": self.model,
            "state": self.state,
            "seconds": round(now - self.since, 3),
        }


@dataclass
class Engine:
    settings: Settings
    models: Models
    puller: Puller
    scheduler: Scheduler
    metrics: Metrics
    keys: KeyRing | None = None
    requests: RequestLog | None = None
    started: float = field(default_factory=time.time)
    ready: bool = False
    draining: bool = False
    running: dict[int, Running] = field(default_factory=dict)
    describe: Callable[[], dict[str, Any]] = dict
    """The OpenAPI description; made when it is first asked for, as that takes a third of a second."""
    stats: dict[str, Stats] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def use(
        self,
        call: Call,
        files: ModelFiles,
        options: RunnerOptions,
        keep_alive: float | None,
        *,
        load_only: bool = False,
        slotless: bool = False,
    ) -> AsyncIterator[Lease]:
        """The model, with the scheduler's refusals as the client's errors, and the request on the list of
        those that run."""
        entry = Running(call.request_id, call.client, call.scope["path"], files.name)
        self.running[id(entry)] = entry
        lease: Lease | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    lease = await stack.enter_async_context(
                        self.scheduler.use(
                            files,
                            options,
                            keep_alive,
                            call.client,
                            call.request_id,
                            load_only=load_only,
                            slotless=slotless,
                        )
                    )
                except SchedulerError as error:
                    raise scheduler_error(error) from None
                entry.state = "running"
                yield lease
        except (asyncio.CancelledError, GeneratorExit) as error:
            if lease is None or not lease.answered:
                self.metrics.cancelled.labels(self.metrics.label(files.name)).inc()
            if entry.stopped and entry.task is not None and isinstance(error, asyncio.CancelledError):
                entry.task.uncancel()
                raise ApiError(CANCELED, "request canceled", code="request_canceled") from None
            raise
        finally:
            del self.running[id(entry)]

    async def failure(self, kind: str, text: str, runner: RunnerProcess) -> ApiError:
        """What a runner said went wrong, as the client's error; a GPU that is gone is named as the cause."""
        if kind == "busy":
            return QueueFull(self.settings.max_queue + self.scheduler.waiting, self.scheduler.retry_after())
        if kind == "internal" and runner.info.size_vram and _COMPUTING in text:
            # An error of the driver stays with the process, also when the GPU is back.
            self.scheduler.distrust(runner)
        if kind in ("crashed", "internal") and (lost := await self.lost_gpu()):
            self.scheduler.distrust(runner)
            return ApiError(500, f"gpu lost: {lost}; {text}", code="gpu_lost")
        return runner_error(kind, text)

    async def lost_gpu(self) -> str | None:
        """Why fewer GPUs answer than at start."""
        return (await self.scheduler.gpus.look()).lost

    def forget_stale(self) -> None:
        """Lets models go whose names stand for other files now, or for none: deleted or replaced while they
        were loaded, by this server or by another program on the same directory."""
        for residency in self.scheduler.residencies():
            for name in list(residency.names):
                with contextlib.suppress(
                    ModelsError, OSError
                ):  # a store that cannot be read says nothing of it
                    if (key := self.models.key(name)) != residency.key:
                        self.scheduler.forget(name, besides=key)

    async def refresh_stats(self) -> None:
        """Asks each runner how full its cache is. One that is frozen or dying must not hold up whoever asks
        whether the engine is well: its last answer stands."""
        there = {r.key: r.process for r in self.scheduler.residencies() if r.process is not None}
        answers = await asyncio.gather(*(_stats_of(process) for process in there.values()))
        fresh = dict(zip(there, answers, strict=True))
        known = {key: fresh[key] or self.stats.get(key) for key in there}
        self.stats = {key: stats for key, stats in known.items() if stats is not None}

    def stats_of(self, residency: Residency) -> Stats:
        """What its runner said last."""
        return self.stats.get(residency.key) or Stats()

    def cells_used(self, residency: Residency) -> int:
        return self.stats_of(residency).cells_active


async def _stats_of(process: RunnerProcess) -> Stats | None:
    try:
        return await asyncio.wait_for(process.stats(), STATS_SECONDS)
    except (RunnerError, TimeoutError):
        return None

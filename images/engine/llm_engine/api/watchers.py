"""What is noted without anybody asking: the scheduler's doings, the loaded models, and a slow event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llm_engine.api.metrics import Metrics
from llm_engine.api.state import Engine
from llm_engine.scheduler.observer import Observer

TICK = 0.05
# With nobody to serve there is nobody to be late for, and an idle server should not wake its processor.
IDLE_TICK = 1.0
GPU_TICK = 2.0
log = logging.getLogger("llm_engine.watch")


class MetricsObserver(Observer):
    """The scheduler's reports as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics

    def waited(self, model: str, seconds: float) -> None:
        super().waited(model, seconds)
        self.metrics.queue_wait.labels(self.metrics.label(model)).observe(seconds)

    def rejected(self, model: str) -> None:
        self.metrics.rejected.inc()

    def loaded(self, model: str, seconds: float) -> None:
        self.metrics.loads.labels(self.metrics.label(model)).inc()
        self.metrics.load_seconds.labels(self.metrics.label(model)).observe(seconds)

    def load_failed(self, model: str) -> None:
        self.metrics.load_failures.labels(self.metrics.label(model)).inc()

    def evicted(self, model: str) -> None:
        self.metrics.evictions.labels(self.metrics.label(model)).inc()

    def crashed(self, model: str) -> None:
        self.metrics.crashes.labels(self.metrics.label(model)).inc()


@dataclass(frozen=True)
class _Loaded:
    label: str
    ram_bytes: int
    vram_bytes: int
    cells_used: int
    cells: int
    parked_bytes: int


def loaded_models(engine: Engine) -> Iterable[_Loaded]:
    for residency in engine.scheduler.residencies():
        process = residency.process
        if process is None:
            continue
        info = process.info
        yield _Loaded(
            label=engine.metrics.label(residency.name),
            ram_bytes=info.size - info.size_vram,
            vram_bytes=info.size_vram,
            cells_used=engine.cells_used(residency),
            cells=info.cells,
            parked_bytes=engine.stats_of(residency).parked_bytes,
        )


async def watch_gpus(engine: Engine) -> None:
    """Notices that a GPU is gone, or is back, when nobody asks: models go on without it, or fail, and the
    log should say why from the beginning."""
    before: str | None = None
    while engine.scheduler.gpus.known:
        lost = await engine.lost_gpu()
        if lost and not before:
            log.error("gpu lost", extra={"data": {"reason": lost}})
            engine.metrics.gpu_lost.inc()
        elif before and not lost:
            log.info("gpu is back")
        before = lost
        await asyncio.sleep(GPU_TICK)


async def watch_loop(metrics: Metrics, busy: Callable[[], bool]) -> None:
    """Measures how late timers run: everything that blocks the loop shows here."""
    while True:
        tick = TICK if busy() else IDLE_TICK
        before = time.monotonic()
        await asyncio.sleep(tick)
        metrics.loop_lag.observe(max(time.monotonic() - before - tick, 0.0))

"""What the stack does right now: one reading of services, models, GPU and the engine's counters.

Rates come from two readings: the difference of the engine's counters over the time between them.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field

from stackctl.engine_api import EngineError
from stackctl.operations.context import Stack
from stackctl.operations.status import GpuUse, LoadedModel, gpus, loaded_models
from stackctl.runtime.base import ServiceStatus

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+([-+0-9.eE]+|NaN|\+Inf)", re.MULTILINE)


@dataclass(frozen=True)
class Reading:
    at: float
    services: tuple[ServiceStatus, ...]
    models: tuple[LoadedModel, ...]
    gpus: tuple[GpuUse, ...]
    load: tuple[float, float, float]
    counters: dict[str, float] = field(default_factory=dict)


def read(stack: Stack) -> Reading:
    status = stack.runtime.status()
    running = status.service("engine").state == "running"
    models = tuple(loaded_models(stack)) if running else ()
    counters = engine_counters(stack) if running else {}
    return Reading(time.monotonic(), status.services, models, gpus(stack), os.getloadavg(), counters)


def engine_counters(stack: Stack) -> dict[str, float]:
    """Sums over all labels, by metric name; empty where the engine has no metrics."""
    try:
        text = stack.engine(timeout=3).metrics()
    except EngineError:
        return {}
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def rate(before: Reading | None, now: Reading, *names: str) -> float | None:
    """Per second, of the first of `names` that the engine has."""
    if before is None or now.at <= before.at:
        return None
    for name in names:
        if name in now.counters and name in before.counters:
            return max(0.0, now.counters[name] - before.counters[name]) / (now.at - before.at)
    return None


def cpu_load(before: Reading | None, now: Reading) -> dict[str, float]:
    """Processors that each service keeps busy: 1.0 is one. One that was just restarted is left out."""
    if before is None or now.at <= before.at:
        return {}
    used = {one.name: one.cpu_seconds for one in before.services}
    return {
        one.name: (one.cpu_seconds - earlier) / (now.at - before.at)
        for one in now.services
        if one.cpu_seconds is not None
        and (earlier := used.get(one.name)) is not None
        and one.cpu_seconds >= earlier
    }


def gauge(now: Reading, *names: str) -> float | None:
    return next((now.counters[name] for name in names if name in now.counters), None)

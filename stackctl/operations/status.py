"""Everything `stackctl status` shows: services, loaded models, GPUs, drift, and who holds the lock."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from stackctl.config.section import format_size
from stackctl.engine_api import EngineError
from stackctl.health.look.gpus import parse, query
from stackctl.operations.context import Stack
from stackctl.runtime import lock
from stackctl.runtime.base import StackStatus
from stackctl.runtime.command import run


@dataclass(frozen=True)
class LoadedModel:
    name: str
    bytes: int
    gpu_bytes: int
    """Below `bytes`: a part of the model spilled to the CPU, which is said and not averaged."""
    expires_at: str | None

    def __str__(self) -> str:
        share = f"{100 * self.gpu_bytes // max(1, self.bytes)}% GPU"
        where = (
            "GPU" if self.gpu_bytes and self.gpu_bytes >= self.bytes else share if self.gpu_bytes else "CPU"
        )
        return f"{self.name} {format_size(self.bytes)} on {where}, until {(self.expires_at or '?')[:19]}"


@dataclass(frozen=True)
class GpuUse:
    name: str
    used_bytes: int
    total_bytes: int
    celsius: float | None
    busy_percent: float | None

    def __str__(self) -> str:
        text = f"{self.name}, {format_size(self.used_bytes)} of {format_size(self.total_bytes)}"
        return text if self.busy_percent is None else f"{text}, {self.busy_percent:g}% busy"


@dataclass(frozen=True)
class Overview:
    stack: StackStatus
    models: tuple[LoadedModel, ...]
    gpus: tuple[GpuUse, ...]
    lock: dict[str, Any] | None

    def document(self) -> dict[str, Any]:
        parts = {
            name: [dataclasses.asdict(one) for one in getattr(self, name)] for name in ("models", "gpus")
        }
        return {**dataclasses.asdict(self.stack), **parts, "lock": self.lock}


def collect(stack: Stack) -> Overview:
    status = stack.runtime.status()
    running = status.service("engine").state == "running"
    models = tuple(loaded_models(stack)) if running else ()
    wanted = stack.config.runtime
    if status.services and wanted not in ("auto", stack.runtime.name):
        line = f"runs on {stack.runtime.name}, the stack file says {wanted}: stackctl up moves it"
        status = dataclasses.replace(status, drift=(line, *status.drift))
    return Overview(status, models, gpus(stack), lock.holder(stack.name))


def loaded_models(stack: Stack) -> list[LoadedModel]:
    try:
        loaded = stack.engine(timeout=3).ps()
    except EngineError:
        return []
    return [
        LoadedModel(
            str(model["name"]),
            int(model.get("size", 0)),
            int(model.get("size_vram", 0)),
            model.get("expires_at"),
        )
        for model in loaded
    ]


def gpus(stack: Stack) -> tuple[GpuUse, ...]:
    """Those of this host; none where nothing tells of them."""
    mode = stack.config.gpu.mode
    if mode == "none":
        return ()
    found = run(query(mode), timeout=10, check=False)
    return tuple(
        GpuUse(one.name, int(one.used) << 20, int(one.total) << 20, one.celsius, one.busy)
        for one in parse(found.stdout)
    )

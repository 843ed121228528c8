"""Everything `stackctl status` shows: services, loaded models, GPUs, drift, and who holds the lock."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from stackctl.config.section import format_size
from stackctl.engine_api import EngineError
from stackctl.operations.context import Stack
from stackctl.runtime import lock
from stackctl.runtime.base import StackStatus
from stackctl.runtime.command import run


@dataclass(frozen=True)
class Overview:
    stack: StackStatus
    models: tuple[str, ...]
    gpus: tuple[str, ...]
    lock: dict[str, Any] | None

    def document(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.stack), "models": self.models, "gpus": self.gpus, "lock": self.lock}


def collect(stack: Stack) -> Overview:
    status = stack.runtime.status()
    running = status.service("engine").state == "running"
    models = tuple(loaded_models(stack)) if running else ()
    wanted = stack.config.runtime
    if status.services and wanted not in ("auto", stack.runtime.name):
        line = f"runs on {stack.runtime.name}, the stack file says {wanted}: stackctl up moves it"
        status = dataclasses.replace(status, drift=(line, *status.drift))
    return Overview(status, models, gpu_lines(stack), lock.holder(stack.name))


def loaded_models(stack: Stack) -> list[str]:
    """`size_vram` below `size` means that part of the model spilled to the CPU: said, not averaged."""
    try:
        loaded = stack.engine(timeout=3).ps()
    except EngineError:
        return []
    lines = []
    for model in loaded:
        size, vram = int(model.get("size", 0)), int(model.get("size_vram", 0))
        where = "GPU" if vram and vram >= size else "CPU" if not vram else f"{100 * vram // size}% GPU"
        lines.append(
            f"{model['name']} {format_size(size)} on {where}, until {model.get('expires_at', '?')[:19]}"
        )
    return lines


def gpu_lines(stack: Stack) -> tuple[str, ...]:
    if stack.config.gpu.mode == "none":
        return ()
    query = [
        "nvidia-smi",
        "--query-gpu=name,memory.used,memory.total,utilization.gpu",
        "--format=csv,noheader",
    ]
    found = run(query, timeout=10, check=False)
    return tuple(found.stdout.splitlines()) if found.returncode == 0 else ()

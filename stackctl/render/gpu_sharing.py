"""What engine and ComfyUI have of a GPU that both of them see: said where it can be read, and kept as far as
it can be.

No driver divides a GPU's memory between two containers. Whoever allocates first has it, and the other one
fails or goes slow; computing takes turns. What can be promised is that the engine, which plans what it loads,
leaves free what ComfyUI is to have.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.config import StackConfig
from stackctl.config.section import format_size
from stackctl.render.gpu import GpuChoice

LABEL = "dev.stackctl.gpu"


@dataclass(frozen=True)
class Sharing:
    left: int | None  # bytes of each GPU that the engine plans around

    def __str__(self) -> str:
        if self.left is None:
            return "engine and comfyui share the GPU: who loads first has its memory"
        return f"engine and comfyui share the GPU: the engine leaves {format_size(self.left)} of it free"

    @property
    def advice(self) -> str:
        if self.left is None:
            return "services.comfyui.gpu_memory makes the engine leave room"
        return "ComfyUI is not held to that"

    def label(self, service: str) -> dict[str, str]:
        return {LABEL: str(self)} if service in ("engine", "comfyui") else {}

    def environment(self, service: str) -> dict[str, str]:
        known = service == "engine" and self.left is not None
        return {"OLLAMA_GPU_OVERHEAD": str(self.left)} if known else {}


def of(config: StackConfig, gpu: GpuChoice) -> Sharing | None:
    """None where there is nothing to share."""
    engine, comfyui = config.services.engine, config.services.comfyui
    if gpu.mode == "none" or not engine.enabled or not comfyui.enabled:
        return None
    return Sharing(comfyui.gpu_memory)

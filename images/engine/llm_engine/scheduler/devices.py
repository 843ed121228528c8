"""What GPUs there are right now, and their memory."""

from __future__ import annotations

import logging
from typing import Any

from llm_engine.scheduler.memory import Gpu

log = logging.getLogger("llm_engine.devices")


class Gpus:
    """NVML, opened once. A machine without NVIDIA's driver has no GPUs; one whose GPU vanishes says so."""

    def __init__(self, nvml: Any = None) -> None:
        """`nvml`: the library to ask, if not the machine's own."""
        self._nvml = _open_nvml() if nvml is None else nvml
        self.lost: str | None = None
        self.known = len(self.list()) if self._nvml else 0

    def list(self) -> list[Gpu]:
        if self._nvml is None:
            return []
        nvml = self._nvml
        try:
            found = []
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                name = nvml.nvmlDeviceGetName(handle)
                found.append(Gpu(index, name, int(memory.total), int(memory.free)))
        except nvml.NVMLError as error:
            self.lost = str(error)
            return []
        self.lost = None
        return found

    def missing(self) -> str | None:
        """Why fewer GPUs answer than at start, or None when all do."""
        if not self.known:
            return None
        now = self.list()
        if len(now) >= self.known:
            return None
        return self.lost or f"{len(now)} of {self.known} GPUs answer"


def _open_nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - any failure means the same: no NVIDIA driver here
        log.debug("no NVML", extra={"data": {"reason": str(error)}})
        return None
    return pynvml

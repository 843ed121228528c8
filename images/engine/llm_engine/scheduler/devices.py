"""What memory there is right now: main memory (this container's, if it has a limit) and that of NVIDIA
GPUs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import psutil

from llm_engine.scheduler.memory import Gpu

log = logging.getLogger("llm_engine.devices")
_CGROUP = Path("/sys/fs/cgroup")


def available_ram() -> int:
    """Bytes that can be taken without swapping, within the cgroup's limit."""
    host = int(psutil.virtual_memory().available)
    inside = _cgroup_room()
    return host if inside is None else min(host, inside)


def _cgroup_room() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # File pages are given back under pressure; a mapped model counts as such.
    return int(limit) - used + int(stat.get("file", 0)) - int(stat.get("shmem", 0))


class Gpus:
    """NVML, opened once. A machine without NVIDIA's driver has no GPUs; one whose GPU vanishes says so."""

    def __init__(self) -> None:
        self._nvml = _open_nvml()
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

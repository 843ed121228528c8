"""What GPUs there are right now, and their memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.scheduler.memory import Gpu

log = logging.getLogger("llm_engine.devices")


PATIENCE = 2.0


@dataclass(frozen=True)
class Look:
    """The GPUs that answer, and why they are fewer than at start, if they are."""

    gpus: Sequence[Gpu]
    lost: str | None


class Gpus:
    """NVML, opened once. A machine without NVIDIA's driver has no GPUs; one whose GPU vanishes says so."""

    def __init__(self) -> None:
        self._nvml = _open_nvml()
        self.lost: str | None = None
        self._asking: asyncio.Future[list[Gpu]] | None = None
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

    async def look(self) -> Look:
        """What there is, asked in a thread: a driver that hangs with its GPU must not take the server along.
        While one question hangs, no other is asked."""
        if not self.known:
            return Look((), None)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self.list))
        try:
            found = await asyncio.wait_for(asyncio.shield(self._asking), PATIENCE)
        except TimeoutError:
            return Look((), f"the driver has not answered for {PATIENCE:g} s")
        if len(found) >= self.known:
            return Look(found, None)
        return Look(found, self.lost or f"{len(found)} of {self.known} GPUs answer")


def _open_nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - any failure means the same: no NVIDIA driver here
        log.debug("no NVML", extra={"data": {"reason": str(error)}})
        return None
    return pynvml

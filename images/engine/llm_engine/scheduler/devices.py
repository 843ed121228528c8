"""What GPUs there are right now, and their memory: those that runners will see, numbered as they number them.

The driver counts all cards in the order of their slots. CUDA does the same when it is asked to
(`ENVIRONMENT`), and leaves out what `CUDA_VISIBLE_DEVICES` does not name.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.scheduler.memory import Gpu

log = logging.getLogger("llm_engine.devices")


PATIENCE = 2.0
ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


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
        found, lost = [], None
        try:
            wanted = visible(os.environ.get("CUDA_VISIBLE_DEVICES"), nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            self.lost = str(error)
            return []
        for index, card in enumerate(wanted):
            try:
                found.append(_card(nvml, index, card))
            except nvml.NVMLError as error:  # the others may go on
                lost = str(error)
        self.lost = lost
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


def _card(nvml: Any, index: int, card: int | str) -> Gpu:
    by_index = isinstance(card, int)
    handle = (nvml.nvmlDeviceGetHandleByIndex if by_index else nvml.nvmlDeviceGetHandleByUUID)(card)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(index, nvml.nvmlDeviceGetName(handle), int(memory.total), int(memory.free))


def visible(setting: str | None, count: int) -> Sequence[int | str]:
    """The cards that `CUDA_VISIBLE_DEVICES` leaves, as numbers or identifiers, in its order. As in CUDA, the
    first one that does not exist ends the list."""
    if setting is None:
        return range(count)
    cards: list[int | str] = []
    for word in setting.split(","):
        text = word.strip()
        if text.startswith(("GPU-", "MIG-")):
            cards.append(text)
        elif text.isdigit() and int(text) < count:
            cards.append(int(text))
        else:
            break
    return cards


def _open_nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - any failure means the same: no NVIDIA driver here
        log.debug("no NVML", extra={"data": {"reason": str(error)}})
        return None
    return pynvml

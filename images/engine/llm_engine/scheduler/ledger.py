"""GPU memory that was promised to models while they load.

What the driver calls free shrinks only as a load goes on, so two loads that begin together would both be
given the same bytes. From the first promise until no load is under way, a GPU has as much to give as it had
then, less all that was promised since; never more than the driver says is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llm_engine.scheduler.memory import Gpu

Bytes = Mapping[int, int]


class Ledger:
    """Who was promised how much of which GPU; the keys are whatever the owner tells loads by."""

    def __init__(self) -> None:
        self._base: dict[int, int] = {}
        self._loading: dict[object, Bytes] = {}
        self._settled: list[Bytes] = []

    def promise(self, key: object, amounts: Bytes, gpus: Sequence[Gpu]) -> None:
        """`gpus` as the driver sees them now, before the load begins."""
        for gpu in gpus:
            self._base.setdefault(gpu.index, gpu.free)
        self._loading[key] = amounts

    def loaded(self, key: object) -> None:
        """It has what it was promised; while others load, the driver's figure cannot tell whose is whose."""
        if (amounts := self._loading.pop(key, None)) is not None:
            self._settled.append(amounts)
        self._close()

    def given_up(self, key: object) -> None:
        """The load failed, and what it took has come back."""
        self._loading.pop(key, None)
        self._close()

    def came_back(self, amounts: Bytes) -> None:
        """A model was unloaded meanwhile."""
        for index, amount in amounts.items():
            if index in self._base:
                self._base[index] += amount

    def _close(self) -> None:
        if not self._loading:
            self._base.clear()
            self._settled.clear()

    def available(self, gpus: Sequence[Gpu]) -> list[Gpu]:
        """The GPUs with what may still be promised of each as their free memory."""
        return [replace(gpu, free=self._left(gpu)) for gpu in gpus]

    def _left(self, gpu: Gpu) -> int:
        promised = sum(each.get(gpu.index, 0) for each in (*self._loading.values(), *self._settled))
        base = self._base.get(gpu.index, gpu.free)
        return max(min(gpu.free, max(base, gpu.free) - promised), 0)

"""Which cards runners will see, and under which numbers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from llm_engine.scheduler.devices import Gpus, visible


@pytest.mark.parametrize(
    ("setting", "cards"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        ("0,7,1", [0]),
        ("GPU-8f3a,1", ["GPU-8f3a", 1]),
    ],
)
def test_visible_devices(setting: str | None, cards: list[int | str]) -> None:
    assert list(visible(setting, 3)) == cards


def test_cards_are_numbered_as_runners_number_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {0: 8, 1: 24, 2: 48, "GPU-8f3a": 80}
    library = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda text: text,
        nvmlDeviceGetName=str,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=sizes[handle], free=sizes[handle]),
    )
    monkeypatch.setattr("llm_engine.scheduler.devices._open_nvml", lambda: library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f3a,0")
    gpus = Gpus()
    assert [(gpu.index, gpu.total) for gpu in gpus.list()] == [(0, 48), (1, 80), (2, 8)]
    assert gpus.known == 3


def test_one_lost_card_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []

    def memory(handle: int) -> SimpleNamespace:
        if handle in lost:
            raise OSError("GPU is lost")
        return SimpleNamespace(total=8, free=8)

    library = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=str,
        nvmlDeviceGetMemoryInfo=memory,
    )
    monkeypatch.setattr("llm_engine.scheduler.devices._open_nvml", lambda: library)
    gpus = Gpus()
    lost.append(0)
    look = asyncio.run(gpus.look())
    assert [gpu.index for gpu in look.gpus] == [1] and look.lost == "GPU is lost"

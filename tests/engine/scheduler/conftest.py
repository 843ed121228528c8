"""A machine with GPUs for the scheduler: real runners, and a driver's library that reckons what they would
take of a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler import Limits, Scheduler
from llm_engine.scheduler.devices import Gpus
from llm_engine.scheduler.errors import LoadError
from llm_engine.scheduler.memory import Shape, need
from llm_engine.scheduler.plan import Defaults, ModelFiles
from llm_engine.scheduler.process import RunnerProcess
from llm_engine.scheduler.scheduler import start_runner

MIB = 1 << 20
CONTEXT = 256
LAYERS = 8


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - conditions over state that has no event
            await asyncio.sleep(0.005)


class Card:
    """One GPU as NVML shows it. Models take their memory as they load, and give it back when they end,
    after `lag` looks."""

    class NVMLError(Exception):
        pass

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken: dict[str, int] = {}
        self.lag = 0
        self._late: list[tuple[int, int]] = []
        self.looks = 0

    @property
    def free(self) -> int:
        late = sum(size for until, size in self._late if until > self.looks)
        return self.total - sum(self.taken.values()) - late

    def give_back(self, name: str) -> None:
        if size := self.taken.pop(name, 0):
            self._late.append((self.looks + self.lag, size))

    def nvmlDeviceGetCount(self) -> int:
        self.looks += 1
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "Stand-in"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=self.total, free=self.free)


class GpuMachine:
    """A scheduler over a `Card`, and how each model was loaded."""

    def __init__(self, scheduler: Scheduler, card: Card, folder: Path, weights: Path) -> None:
        self.scheduler = scheduler
        self.card = card
        self.folder = folder
        self.weights = weights
        self.loads: list[tuple[str, int]] = []
        self.fail: list[str] = []
        """What the next loads end with."""
        self.gate = asyncio.Event()
        self.gate.set()

    def model(self, name: str, layer: int = 100 * MIB, width: int = 64) -> ModelFiles:
        """`width` is how many elements of cache each layer has per token."""
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            path.symlink_to(self.weights)
        shape = Shape(
            layers=(layer,) * LAYERS, kv_elements=(width,) * LAYERS, n_embd=64, n_vocab=300, n_ctx_train=32768
        )
        return ModelFiles(name=name, path=str(path), shape=shape)

    def size(self, layers: int = LAYERS, layer: int = 100 * MIB) -> int:
        """What so many layers of a model take."""
        shape = self.model("size", layer).shape
        wanted = need(shape, cells=CONTEXT, num_batch=512, kv_type="f16")
        return layers * (layer + wanted.kv // LAYERS) + wanted.compute + 256 * MIB

    async def start(self, spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
        name = Path(spec.model_path).stem
        self.loads.append((name, spec.num_gpu))
        await self.gate.wait()
        if self.fail:
            raise LoadError(self.fail.pop())
        process = await start_runner(spec, on_progress)
        if spec.num_gpu:
            self.card.taken[name] = self.size(min(spec.num_gpu, LAYERS))
            process.exited.add_done_callback(lambda _: self.card.give_back(name))
            # What llama.cpp would have measured, had there been a GPU.
            process.info = type(process.info)(
                **{**vars(process.info), "size_vram": self.card.taken[name] - 256 * MIB}
            )
        return process


Build = Callable[..., GpuMachine]


@pytest.fixture
async def gpu_machine(
    tmp_path: Path, chat_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Build]:
    made: list[GpuMachine] = []

    def build(total: int, automatic: int = 0, **limits: object) -> GpuMachine:
        card = Card(total)
        monkeypatch.setattr("llm_engine.scheduler.devices._open_nvml", lambda: card)
        defaults = Defaults(
            context_length=automatic or CONTEXT, automatic_context=automatic > 0, num_parallel=1
        )

        async def start(spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
            return await machine.start(spec, on_progress)

        scheduler = Scheduler(
            defaults,
            Limits(**limits),  # type: ignore[arg-type]
            start=start,
            gpus=Gpus(),
            ram=lambda: 1 << 40,
        )
        machine = GpuMachine(scheduler, card, tmp_path, chat_gguf)
        made.append(machine)
        return machine

    yield build
    for machine in made:
        machine.gate.set()
        await machine.scheduler.close(0)

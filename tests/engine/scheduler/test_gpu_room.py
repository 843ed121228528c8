"""Models on one GPU: who leaves for whom, and that no memory is given twice. The driver's library is a
stand-in; runners, processes and the scheduler are real."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from llm_engine.scheduler.errors import LoadError
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import ModelFiles

from tests.engine.scheduler.conftest import LAYERS, MIB, Build, GpuMachine, until
from tests.engine.scheduler.test_scheduler import loaded

ALL = LAYERS + 1


async def use(machine: GpuMachine, model: ModelFiles, **options: int) -> int:
    """Loads it; how many layers are on the GPU."""
    async with machine.scheduler.use(model, RunnerOptions(**options)) as lease:
        return lease.spec.num_gpu


async def test_idle_models_leave_a_gpu_that_is_full(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = 2 * machine.size() + 10 * MIB
    for name in ("a", "b", "a", "c"):
        assert await use(machine, machine.model(name)) == ALL
    assert loaded(machine.scheduler) == {"a", "c"}, "the least recently used one has left"


async def test_a_pinned_model_stays_and_the_other_makes_do(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + machine.size(3) + 10 * MIB
    assert await use(machine, machine.model("a")) == ALL
    machine.scheduler.keep(machine.model("a").name)
    assert 0 < await use(machine, machine.model("b")) < ALL
    assert loaded(machine.scheduler) == {"a", "b"}


async def test_a_model_in_use_is_waited_for(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 300 * MIB
    async with machine.scheduler.use(machine.model("a")) as lease:
        waiting = asyncio.create_task(use(machine, machine.model("b")))
        await until(lambda: any(r.evict for r in machine.scheduler.residencies()))
        assert lease.runner.alive and not waiting.done()
    assert await waiting == ALL
    assert loaded(machine.scheduler) == {"b"}


@pytest.mark.parametrize("layers", [0, 2])
async def test_who_waits_for_a_gpu_keeps_no_other_from_the_rest_of_it(
    gpu_machine: Build, layers: int
) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + machine.size(2) + 10 * MIB
    async with asyncio.timeout(60), machine.scheduler.use(machine.model("a")):
        waiting = asyncio.create_task(use(machine, machine.model("b")))
        await until(lambda: any(r.evict for r in machine.scheduler.residencies()))
        assert await use(machine, machine.model("c"), num_gpu=layers) == layers
        assert not waiting.done()
    assert await waiting == ALL


async def test_loads_side_by_side_are_not_given_the_same_memory(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 300 * MIB
    machine.gate.clear()
    tasks = [asyncio.create_task(use(machine, machine.model(name))) for name in ("a", "b")]
    await until(lambda: machine.loads)
    machine.gate.set()
    assert await asyncio.gather(*tasks) == [ALL, ALL]
    assert sorted(name for name, _ in machine.loads) == ["a", "b"] and len(loaded(machine.scheduler)) == 1


async def test_loads_side_by_side_where_both_fit(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = 2 * machine.size() + 10 * MIB
    machine.gate.clear()
    tasks = [asyncio.create_task(use(machine, machine.model(name))) for name in ("a", "b")]
    await until(lambda: len(machine.loads) == 2)
    machine.gate.set()
    assert await asyncio.gather(*tasks) == [ALL, ALL]
    assert loaded(machine.scheduler) == {"a", "b"}


async def test_memory_that_comes_back_late_is_waited_for(gpu_machine: Build) -> None:
    """It stands still for a while before it comes back, which must not be taken for the end."""
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 10 * MIB
    machine.card.lag = 8
    assert await use(machine, machine.model("a")) == ALL
    assert await use(machine, machine.model("b")) == ALL
    await machine.scheduler.unload(machine.model("b"))
    assert machine.card.free == machine.card.total, "unload ends when the memory is back"


async def test_what_a_crash_leaves_is_free_again(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 10 * MIB
    async with machine.scheduler.use(machine.model("a")) as lease:
        os.kill(lease.runner.pid, signal.SIGKILL)
        await lease.runner.exited
    assert await use(machine, machine.model("b")) == ALL


async def test_num_gpu(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 10 * MIB
    assert await use(machine, machine.model("a"), num_gpu=-1) == ALL
    assert await use(machine, machine.model("a"), num_gpu=999) == ALL
    assert machine.loads == [("a", ALL)], "both mean all of it"
    assert await use(machine, machine.model("b"), num_gpu=0) == 0
    assert loaded(machine.scheduler) == {"a", "b"}, "on the processor it is in nobody's way"
    assert await use(machine, machine.model("a"), num_gpu=3) == 3


async def test_a_lost_gpu_fails_the_load(gpu_machine: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = gpu_machine(1 << 30)

    def lost() -> int:
        raise machine.card.NVMLError("GPU is lost")

    monkeypatch.setattr(machine.card, "nvmlDeviceGetCount", lost)
    with pytest.raises(LoadError, match="gpu lost: GPU is lost"):
        await use(machine, machine.model("a"))
    assert await use(machine, machine.model("a"), num_gpu=0) == 0


async def test_a_gpu_with_less_room_than_was_reckoned_gets_less(gpu_machine: Build) -> None:
    machine = gpu_machine(0)
    machine.card.total = machine.size() + 10 * MIB
    machine.fail = ["llama.cpp could not load it: unable to allocate CUDA0 buffer"]
    assert 0 < await use(machine, machine.model("a")) < ALL
    assert machine.loads[0] == ("a", ALL) and len(machine.loads) == 2
    machine.fail = ["unknown model architecture"]
    with pytest.raises(LoadError, match="unknown model architecture"):
        await use(machine, machine.model("b"))
    assert len(machine.loads) == 3, "nothing else is tried twice"


async def test_an_automatic_context_leaves_room_for_the_layers(gpu_machine: Build) -> None:
    """What it came to is what the runner has, and serves whoever asks for no other."""
    machine = gpu_machine(2 << 30, automatic=32768)
    model = machine.model("a", width=4096)
    async with machine.scheduler.use(model) as lease:
        assert lease.spec.num_gpu == ALL and lease.runner.info.n_ctx == 8192
    assert await use(machine, model, num_ctx=4096) == ALL
    assert await use(machine, model) == ALL and len(machine.loads) == 1
    assert await use(machine, model, num_ctx=16384) < ALL, "asked for, so it stays"
    assert await use(machine, model) < ALL and len(machine.loads) == 2, "it would come to less"

"""Who leaves for whom, and what a context comes to, with the headers of models that people run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from llm_engine.runner.threads import default_threads
from llm_engine.scheduler.fit import Evict, Load, Machine, Neighbour, Short, Verdict, decide
from llm_engine.scheduler.memory import Gpu, Shape
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import Defaults, ModelFiles, make_plan, satisfies, spec_for

from tests.support.model_headers import LLAMA_8B, LLAMA_70B, build, shape

GIB = 1 << 30


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shape]:
    folder = tmp_path_factory.mktemp("headers")
    return {
        "8b": shape(build(folder / "8b.gguf", LLAMA_8B)),
        "70b": shape(build(folder / "70b.gguf", LLAMA_70B)),
    }


def gpu(total: int, free: int | None = None) -> Gpu:
    return Gpu(0, "g", total * GIB, (total if free is None else free) * GIB)


def verdict(
    model: Shape,
    machine: Machine,
    *neighbours: Neighbour,
    context: int = 262144,
    defaults: Defaults | None = None,
    **options: int,
) -> Verdict:
    settings = defaults or Defaults(context_length=context, automatic_context=True, gpus=len(machine.gpus))
    plan = make_plan(ModelFiles("m", "/m.gguf", model), RunnerOptions(**options), settings)
    return decide(plan, spec_for(plan, settings), machine, neighbours)


def machine(total: int, free: int | None = None, ram: int = 64) -> Machine:
    return Machine([gpu(total, free)], ram * GIB)


def test_the_headers_are_those_of_real_models(headers: dict[str, Shape]) -> None:
    assert 4.5 * GIB < headers["8b"].weights < 5 * GIB and len(headers["8b"].layers) == 32
    assert 38 * GIB < headers["70b"].weights < 42 * GIB and headers["70b"].n_ctx_train == 131072
    assert headers["8b"].input and sum(headers["8b"].kv_elements) * 2 == 128 << 10  # bytes a token


def test_an_8b_model_is_whole_on_a_48_gib_gpu(headers: dict[str, Shape]) -> None:
    found = verdict(headers["8b"], machine(48))
    assert isinstance(found, Load) and found.placement.whole and found.spec.num_gpu == 33
    # The trained length, once: four of them would take 64 GiB.
    assert found.spec.num_ctx == found.spec.cells == 131072


def test_layers_come_before_an_automatic_context(headers: dict[str, Shape]) -> None:
    found = verdict(headers["70b"], machine(48))
    assert isinstance(found, Load) and found.spec.num_gpu == 81
    assert 4096 <= found.spec.num_ctx < 32768
    found = verdict(headers["8b"], machine(12))
    assert isinstance(found, Load) and found.placement.whole and found.spec.num_ctx == 32768


def test_an_explicit_context_is_honoured(headers: dict[str, Shape]) -> None:
    found = verdict(headers["8b"], machine(12), num_ctx=131072)
    assert isinstance(found, Load) and not found.placement.whole
    assert found.spec.num_ctx == found.spec.cells == 131072
    settings = Defaults(context_length=131072, gpus=1)  # from the environment: as good as asked for
    found = verdict(headers["8b"], machine(12), defaults=settings)
    assert isinstance(found, Load) and found.spec.num_ctx == 131072


def test_a_model_that_no_gpu_holds_gets_all_there_is(headers: dict[str, Shape]) -> None:
    found = verdict(headers["70b"], machine(24), context=32768)
    assert isinstance(found, Load) and not found.placement.whole
    assert 40 < found.spec.num_gpu < 81 and found.spec.num_ctx == 4096
    assert sum(found.placement.vram.values()) <= 24 * GIB
    idle = Neighbour(idle=True, vram={0: 6 * GIB})
    found = verdict(headers["70b"], machine(24, 18), idle, context=32768)
    assert isinstance(found, Evict) and found.from_gpu


def test_idle_models_leave_before_layers_go_to_main_memory(headers: dict[str, Shape]) -> None:
    idle = Neighbour(idle=True, vram={0: 20 * GIB})
    found = verdict(headers["8b"], machine(24, 4), idle, context=32768)
    assert isinstance(found, Evict) and found.from_gpu


def test_a_model_in_use_has_to_end_before_layers_go_to_main_memory(headers: dict[str, Shape]) -> None:
    busy = Neighbour(idle=False, vram={0: 20 * GIB})
    found = verdict(headers["8b"], machine(24, 4), busy, context=32768)
    assert isinstance(found, Evict) and found.from_gpu


def test_a_pinned_model_is_lived_with(headers: dict[str, Shape]) -> None:
    pinned = Neighbour(idle=True, pinned=True, vram={0: 20 * GIB})
    found = verdict(headers["8b"], machine(24, 4), pinned, context=32768)
    assert isinstance(found, Load) and 0 < found.spec.num_gpu < 33


def test_beside_others_half_the_automatic_context_does(headers: dict[str, Shape]) -> None:
    """So that two models, used in turn, do not push each other out for ever; less than half is too little."""
    idle = Neighbour(idle=True, vram={0: 14 * GIB})
    found = verdict(headers["8b"], machine(24, 8), idle, context=32768)
    assert isinstance(found, Load) and found.spec.num_ctx == 16384 and found.placement.whole
    assert isinstance(verdict(headers["8b"], machine(24, 6), idle, context=32768), Evict)
    busy = Neighbour(idle=False, vram={0: 14 * GIB})
    found = verdict(headers["8b"], machine(24, 6), busy, context=32768)
    assert isinstance(found, Load) and found.spec.num_ctx == 8192 and found.placement.whole


def test_num_gpu_decides(headers: dict[str, Shape]) -> None:
    found = verdict(headers["8b"], machine(24), num_gpu=10, num_ctx=4096)
    assert isinstance(found, Load) and found.spec.num_gpu == 10
    auto = verdict(headers["8b"], machine(24), num_gpu=-1, num_ctx=4096)
    assert isinstance(auto, Load) and auto.spec.num_gpu == 33
    auto = verdict(headers["8b"], machine(4), num_gpu=-1, num_ctx=4096)
    assert isinstance(auto, Load) and 0 < auto.spec.num_gpu < 33, "-1 is Ollama's word for as many as fit"
    forced = verdict(headers["8b"], machine(4), num_gpu=33, num_ctx=4096)
    assert isinstance(forced, Load) and forced.spec.num_gpu == 33
    idle = Neighbour(idle=True, vram={0: 20 * GIB})
    assert isinstance(verdict(headers["8b"], machine(24, 4), idle, num_gpu=33, num_ctx=4096), Evict)
    assert isinstance(verdict(headers["8b"], machine(24, 4), idle, num_gpu=0, num_ctx=4096), Load)


def test_main_memory_is_told_from_gpu_memory(headers: dict[str, Shape]) -> None:
    neighbour = Neighbour(idle=True, vram={}, ram=30 * GIB)
    found = verdict(headers["8b"], Machine([], 2 * GIB), neighbour, context=4096)
    assert isinstance(found, Evict) and not found.from_gpu and found.missing > GIB
    found = verdict(headers["8b"], Machine([], 2 * GIB), context=4096)
    assert isinstance(found, Short) and "is available (2.0 GiB)" in found.why


def test_nobody_leaves_for_a_model_that_would_not_fit_then(headers: dict[str, Shape]) -> None:
    for idle in (True, False):
        neighbour = Neighbour(idle=idle, vram={0: 2 * GIB}, ram=GIB)
        for place in (Machine([], 2 * GIB), machine(4, 2, ram=2)):
            found = verdict(headers["70b"], place, neighbour, context=4096)
            assert isinstance(found, Short) and "is available (2.0 GiB)" in found.why


def test_what_is_loaded_with_an_automatic_context_serves_whoever_asks_for_none() -> None:
    files = ModelFiles("m", "/m.gguf", Shape(n_ctx_train=131072))
    settings = Defaults(context_length=131072, automatic_context=True, gpus=1)
    automatic = make_plan(files, RunnerOptions(), settings)
    explicit = make_plan(files, RunnerOptions(num_ctx=65536), settings)
    shrunk = spec_for(make_plan(files, RunnerOptions(num_ctx=16384), settings), settings)
    assert satisfies(automatic, shrunk, automatic)
    assert not satisfies(automatic, shrunk, explicit), "an explicit context is not what was only wished for"
    wide = spec_for(explicit, settings)
    assert not satisfies(explicit, shrunk, automatic), "a short one was asked for, and more may be had"
    assert satisfies(explicit, wide, automatic, automatic_ctx=16384), "it would come to less"


def test_on_the_processor_the_gpu_does_not_set_the_context(headers: dict[str, Shape]) -> None:
    found = verdict(headers["8b"], machine(48), num_gpu=0)
    assert isinstance(found, Load) and found.spec.num_ctx == 4096 and not found.placement.vram


def test_what_is_asked_for_by_number_may_be_what_there_is_anyway() -> None:
    files = ModelFiles("m", "/m.gguf", Shape(n_ctx_train=4096))
    loaded = make_plan(files, RunnerOptions(), Defaults())
    spec = replace(spec_for(loaded, Defaults()), mmap=True)
    same = RunnerOptions(num_thread=default_threads(), num_batch=512, use_mmap=True, use_mlock=False)
    assert satisfies(loaded, spec, make_plan(files, same, Defaults()))
    for other in (RunnerOptions(num_thread=default_threads() + 1), RunnerOptions(use_mmap=False)):
        assert not satisfies(loaded, spec, make_plan(files, other, Defaults()))

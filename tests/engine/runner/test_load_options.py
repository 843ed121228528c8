"""What a load asks for reaches llama.cpp: seen in the process, or in the parameters that are handed over."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.api.app import defaults_of
from llm_engine.runner import library, model
from llm_engine.runner.messages import NUMA, SPLIT_MODES, LoadSpec
from llm_engine.runner.model import Context, LoadError, Model
from llm_engine.scheduler.memory import Shape
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import ModelFiles, make_plan, spec_for
from llm_engine.settings import from_env

from tests.engine.runner.conftest import Runners


def about(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def status(pid: int, name: str) -> int:
    """Kilobytes of one line of /proc/PID/status."""
    lines = about(pid, "status").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


async def test_mmap_maps_the_file_and_its_absence_does_not(start: Runners, random_model: Path) -> None:
    for mmap in (True, False, None):  # unless told, a small model is read
        runner = await start(random_model, mmap=mmap)
        assert (str(random_model) in about(runner.pid, "maps")) is bool(mmap)


@pytest.fixture
def size(random_model: Path) -> int:
    return random_model.stat().st_size


async def test_mlock_locks_the_weights(start: Runners, random_model: Path, size: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if os.geteuid() and limit != resource.RLIM_INFINITY and limit < 2 * size:
        pytest.skip(f"this user may lock {limit} bytes, the model has {size}")
    plain, locked = await start(random_model), await start(random_model, mlock=True)
    assert status(plain.pid, "VmLck") == 0
    assert status(locked.pid, "VmLck") * 1024 > 0.8 * size


class Handed:
    """Stands before llama.cpp and notes what it is handed."""

    def __init__(self) -> None:
        self.numa: list[int] = []
        self.model: list[dict[str, Any]] = []
        self.context: list[dict[str, Any]] = []

    def fields(self, params: Any) -> dict[str, Any]:
        return {name: getattr(params, name) for name, *_ in params._fields_}


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handed]:
    library.start()
    noted, lib = Handed(), library.lib
    load, make = lib.llama_model_load_from_file, lib.llama_init_from_model

    def on_load(path: bytes, params: Any) -> Any:
        found = noted.fields(params)
        found["shares"] = [params.tensor_split[i] for i in range(3)] if params.tensor_split else None
        noted.model.append(found)
        return load(path, params)

    def on_make(handle: Any, params: Any) -> Any:
        noted.context.append(noted.fields(params))
        return make(handle, params)

    monkeypatch.setattr(lib, "llama_model_load_from_file", on_load)
    monkeypatch.setattr(lib, "llama_init_from_model", on_make)
    # Not let through: it would move this process's threads for good.
    monkeypatch.setattr(lib, "llama_numa_init", noted.numa.append)
    monkeypatch.setattr(lib, "llama_max_devices", lambda: 3)
    yield noted


def loaded(path: Path, **options: Any) -> None:
    made = Model(LoadSpec(str(path), **options), lambda _: True)
    context = Context(made, cells=64, batch=32, sequences=1)
    context.free()
    made.free()


@pytest.mark.parametrize("name", SPLIT_MODES)
def test_how_gpus_share_a_model(handed: Handed, random_model: Path, name: str) -> None:
    with contextlib.suppress(LoadError) if name == "tensor" else contextlib.nullcontext():
        # Only `tensor` insists on a GPU.
        loaded(random_model, split_mode=name, tensor_split=(3.0, 1.0, 0.0), main_gpu=0, num_gpu=0)
    (found,) = handed.model
    assert found["split_mode"] == SPLIT_MODES[name]
    assert found["shares"] == [3.0, 1.0, 0.0]
    assert found["n_gpu_layers"] == 0


@pytest.mark.parametrize("name", NUMA)
def test_numa(handed: Handed, random_model: Path, name: str) -> None:
    loaded(random_model, numa=name)
    loaded(random_model)
    assert handed.numa == [NUMA[name]]


def test_threads_cache_type_and_flash_attention(handed: Handed, random_model: Path) -> None:
    loaded(random_model, threads=3, kv_type="bf16", flash_attn="on")
    loaded(random_model, threads=1, kv_type="f32", flash_attn="off")
    first, second = handed.context
    assert (first["n_threads"], first["n_threads_batch"], second["n_threads_batch"]) == (3, 3, 1)
    assert (first["type_k"], first["type_v"], second["type_k"]) == (*[model.KV_TYPES["bf16"]] * 2, 0)
    assert (first["flash_attn_type"], second["flash_attn_type"]) == (1, 0)


def spec_of(env: dict[str, str], **options: Any) -> LoadSpec:
    defaults = defaults_of(from_env(env), vram=0)
    files = ModelFiles(name="m", path="m.gguf", shape=Shape(n_ctx_train=4096))
    return spec_for(make_plan(files, RunnerOptions(**options), defaults), defaults)


def test_settings_and_options_become_a_load() -> None:
    spec = spec_of(
        {"LLM_ENGINE_NUMA": "isolate", "LLM_ENGINE_SPLIT_MODE": "row", "LLM_ENGINE_TENSOR_SPLIT": "3, 1"},
        use_mmap=False,
        use_mlock=True,
        num_thread=5,
        num_batch=64,
    )
    assert (spec.numa, spec.split_mode, tuple(spec.tensor_split)) == ("isolate", "row", (3.0, 1.0))
    assert (spec.mmap, spec.mlock, spec.threads, spec.num_batch) == (False, True, 5, 64)
    plain = spec_of({})
    assert (plain.numa, plain.split_mode, tuple(plain.tensor_split)) == (None, "layer", ())
    assert (plain.prefix_cache, plain.idle_cells, plain.park_bytes, plain.lookup) == (True, None, None, 8)
    cache = spec_of(
        {
            "LLM_ENGINE_PREFIX_CACHE": "0",
            "LLM_ENGINE_IDLE_CELLS": "0",
            "LLM_ENGINE_PARK_MB": "1",
            "LLM_ENGINE_LOOKUP": "1000",
        }
    )
    assert (cache.prefix_cache, cache.idle_cells, cache.park_bytes, cache.lookup) == (False, 0, 1 << 20, 64)


@pytest.mark.parametrize("shares", ["a,b", "-1,2", "0,0", "inf"])
def test_settings_that_make_no_sense_are_named_and_passed_over(
    caplog: pytest.LogCaptureFixture, shares: str
) -> None:
    wrong = {"LLM_ENGINE_NUMA": "no", "LLM_ENGINE_SPLIT_MODE": "x", "LLM_ENGINE_TENSOR_SPLIT": shares}
    assert spec_of(wrong) == spec_of({})
    named = {record.__dict__["data"]["name"] for record in caplog.records}
    assert named == set(wrong)

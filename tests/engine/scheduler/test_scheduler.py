"""Who gets a model and when, with real runners and a gate before their start."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from llm_engine import logs
from llm_engine.durations import FOREVER
from llm_engine.runner.messages import EmbedRequest, GenerateRequest, LoadSpec
from llm_engine.scheduler import Limits, Scheduler
from llm_engine.scheduler.errors import Busy, LoadError, ShuttingDown, Unloaded
from llm_engine.scheduler.memory import Shape, need
from llm_engine.scheduler.options import RunnerOptions
from llm_engine.scheduler.plan import Defaults, ModelFiles
from llm_engine.scheduler.process import RunnerError, RunnerProcess
from llm_engine.scheduler.residency import State
from llm_engine.scheduler.room import RAM_MARGIN
from llm_engine.scheduler.scheduler import start_runner

from tests.engine.scheduler.conftest import until
from tests.support import broken_runner


class Gate:
    """Starts real runners, when it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.started: list[str] = []
        self.abandoned: list[str] = []

    async def __call__(self, spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
        self.started.append(Path(spec.model_path).stem)
        try:
            await self.open.wait()
            return await start_runner(spec, on_progress)
        except asyncio.CancelledError:
            self.abandoned.append(Path(spec.model_path).stem)
            raise


@pytest.fixture
def gate() -> Gate:
    return Gate()


Make = Callable[..., Scheduler]


@pytest.fixture
async def make(gate: Gate) -> AsyncIterator[Make]:
    made: list[Scheduler] = []

    def build(num_parallel: int = 1, **limits: object) -> Scheduler:
        defaults = Defaults(context_length=256, num_parallel=num_parallel)
        scheduler = Scheduler(defaults, Limits(**limits), start=gate)  # type: ignore[arg-type]
        made.append(scheduler)
        return scheduler

    yield build
    gate.open.set()
    for scheduler in made:
        await scheduler.close(0)


@pytest.fixture
def files(chat_gguf: Path, tmp_path: Path) -> Callable[[str], ModelFiles]:
    def link(name: str) -> ModelFiles:
        path = tmp_path / f"{name}.gguf"
        if not path.exists():
            path.symlink_to(chat_gguf)
        return ModelFiles(name=name, path=str(path), shape=Shape(n_ctx_train=4096))

    return link


Files = Callable[[str], ModelFiles]


def loaded(scheduler: Scheduler) -> set[str]:
    return {Path(r.key.split("|")[0]).stem for r in scheduler.residencies() if r.process is not None}


async def test_loads_run_side_by_side(make: Make, gate: Gate, files: Files) -> None:
    scheduler = make()
    gate.open.clear()

    async def use(name: str) -> None:
        async with scheduler.use(files(name)):
            pass

    tasks = [asyncio.create_task(use("a")), asyncio.create_task(use("b"))]
    await until(lambda: len(gate.started) == 2)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert loaded(scheduler) == {"a", "b"}


async def test_a_smaller_context_does_not_reload(make: Make, gate: Gate, files: Files) -> None:
    scheduler = make()
    model = files("a")
    async with scheduler.use(model, RunnerOptions(num_ctx=1024)) as lease:
        assert lease.runner.info.n_ctx >= 1024 and lease.load_seconds > 0
    for options in (RunnerOptions(), RunnerOptions(num_ctx=512), RunnerOptions(num_gpu=99)):
        async with scheduler.use(model, options) as lease:
            assert lease.load_seconds == 0
    assert gate.started == ["a"]
    async with scheduler.use(model, RunnerOptions(num_ctx=2048)) as lease:
        assert lease.runner.info.n_ctx >= 2048
    assert gate.started == ["a", "a"]


async def test_the_least_recently_used_idle_model_goes(make: Make, files: Files) -> None:
    scheduler = make(max_loaded_models=2)
    for name in ("a", "b", "a"):
        async with scheduler.use(files(name)):
            pass
    async with scheduler.use(files("c")):
        assert loaded(scheduler) == {"a", "c"}


async def test_one_that_is_slow_to_go_takes_no_other_with_it(
    make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that does not listen is killed after the grace; until then nobody else has to go."""
    monkeypatch.setattr("llm_engine.scheduler.residency.STOP_GRACE", 1.2)
    scheduler = make(max_loaded_models=2)
    for name in ("a", "b", "a"):
        async with scheduler.use(files(name)) as lease:
            if name == "b":
                os.kill(lease.runner.pid, signal.SIGSTOP)
    async with scheduler.use(files("c")):
        assert loaded(scheduler) == {"a", "c"}


async def test_parked_prefixes_make_way_before_a_model_does(
    gate: Gate, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little memory for a second model, until the first one has given up what it had parked."""
    left = 1 << 40
    scheduler = Scheduler(Defaults(context_length=4096, num_parallel=1), start=gate, ram=lambda: left)
    small = replace(files("b"), shape=Shape(layers=(1 << 20,), kv_elements=(16,)))
    async with scheduler.use(files("a")) as lease:
        runner = lease.runner
        # More than may stay in cells, so that the oldest are parked.
        for letter in "pqr":
            async with aclosing(runner.generate(GenerateRequest(letter * 1200, max_tokens=1))) as events:
                assert [event async for event in events]
        assert (await runner.stats()).parked_bytes > 0

        give_back = runner.unpark

        async def unpark(size: int) -> int:
            nonlocal left
            freed, left = await give_back(size), 1 << 40
            return freed

        monkeypatch.setattr(runner, "unpark", unpark)
        left = 0
        await _use(scheduler, small)
        assert (await runner.stats()).parked_bytes == 0
    assert loaded(scheduler) == {"a", "b"}
    await scheduler.close(0)


async def test_mapped_weights_are_not_free_memory(gate: Gate, files: Files) -> None:
    """The system says so, as it could read them again; two models that did so in turn would only read."""
    shape = Shape(layers=(1 << 20,), kv_elements=(16,))
    wanted = need(shape, cells=4096, num_batch=512, kv_type="f16").total
    scheduler = Scheduler(
        Defaults(context_length=4096, num_parallel=1), start=gate, ram=lambda: wanted + RAM_MARGIN + 1000
    )
    async with scheduler.use(files("a"), RunnerOptions(use_mmap=True)):
        pass
    await _use(scheduler, replace(files("b"), shape=shape))
    assert loaded(scheduler) == {"b"}
    await scheduler.close(0)


async def test_use_mmap_is_compared_with_what_the_runner_did(make: Make, gate: Gate, files: Files) -> None:
    """Left open, a small model is read into memory: whoever asks for that needs no other load."""
    scheduler = make()
    loads = []
    for asked in (None, False, True, None, True, False):
        async with scheduler.use(files("a"), RunnerOptions(use_mmap=asked)) as lease:
            loads.append((len(gate.started), lease.runner.info.mapped))
    assert loads == [(1, False), (1, False), (2, True), (2, True), (2, True), (3, False)]


async def test_a_busy_model_is_never_evicted(make: Make, files: Files) -> None:
    scheduler = make(max_loaded_models=1)
    async with scheduler.use(files("a")) as lease:
        waiting = asyncio.create_task(_use(scheduler, files("b")))
        await until(lambda: scheduler.waiting == 1)
        await asyncio.sleep(0.1)
        assert lease.runner.alive and loaded(scheduler) == {"a"} and not waiting.done()
    await waiting
    assert loaded(scheduler) == {"b"}


async def _use(
    scheduler: Scheduler,
    model: ModelFiles,
    client: str = "",
    log: list[str] | None = None,
    keep_alive: float | None = None,
) -> None:
    async with scheduler.use(model, client=client, keep_alive=keep_alive):
        if log is not None:
            log.append(client)


async def test_who_waits_for_a_busy_model_keeps_no_other_from_loading(gate: Gate, files: Files) -> None:
    """But for those who would take what it waits for."""

    def model(name: str, mebibytes: int) -> ModelFiles:
        shape = Shape(layers=(mebibytes << 20,), kv_elements=(16,))
        sizes[name] = need(shape, cells=256, num_batch=512, kv_type="f16").total
        return replace(files(name), shape=shape)

    def free() -> int:
        used = (r.reserved for r in scheduler.residencies() if r.process is not None)
        return RAM_MARGIN + total - sum(used)

    sizes: dict[str, int] = {}
    scheduler = Scheduler(Defaults(context_length=256, num_parallel=1), start=gate, ram=free)
    a, b, c, d = model("a", 3000), model("b", 3500), model("c", 100), model("d", 800)
    total = sizes["b"] + sizes["c"] + 300 * (1 << 20)
    assert sizes["a"] + sizes["d"] < total, "it would fit now"
    async with asyncio.timeout(60):
        async with scheduler.use(a):
            waiting = asyncio.create_task(_use(scheduler, b))
            await until(lambda: any(r.evict for r in scheduler.residencies()))
            late = asyncio.create_task(_use(scheduler, d))
            await _use(scheduler, c)
            assert loaded(scheduler) == {"a", "c"} and not waiting.done() and not late.done()
        await waiting
        assert "b" in loaded(scheduler)
        await late
    assert gate.started == ["a", "c", "b", "d"]
    await scheduler.close(0)


async def test_a_pinned_model_stays(make: Make, files: Files) -> None:
    scheduler = make(max_loaded_models=1)
    async with scheduler.use(files("a")):
        scheduler.keep("a")
    with pytest.raises(LoadError, match="pinned"):
        await _use(scheduler, files("b"))
    assert loaded(scheduler) == {"a"}


async def test_keep_alive(make: Make, files: Files) -> None:
    scheduler = make()
    async with scheduler.use(files("a"), keep_alive=0):
        assert loaded(scheduler) == {"a"}
    await until(lambda: not loaded(scheduler))
    async with scheduler.use(files("a"), keep_alive=0.05):
        pass
    assert loaded(scheduler) == {"a"}
    await until(lambda: not loaded(scheduler))
    async with scheduler.use(files("a"), keep_alive=1000):
        pass
    assert await scheduler.unload(files("a"))
    assert not loaded(scheduler)


async def test_keep_alive_is_what_was_said_last(make: Make, files: Files) -> None:
    """A request that says nothing leaves it; the time of the settings is for who was never told."""
    scheduler = make(keep_alive=500.0)
    await _use(scheduler, files("a"))
    residency = scheduler.find(files("a").key)
    assert residency is not None and 400 < residency.expires_in() <= 500
    async with scheduler.use(files("a"), keep_alive=FOREVER):
        pass
    await _use(scheduler, files("a"))
    assert residency.expires_in() == FOREVER
    async with scheduler.use(files("a"), keep_alive=200):
        pass
    assert 100 < residency.expires_in() <= 200


async def test_an_order_to_leave_holds(make: Make, gate: Gate, files: Files) -> None:
    """Neither who uses the model then, nor who waits for it, nor its load takes the order back."""
    scheduler = make()
    model = files("a")
    async with scheduler.use(model, keep_alive=1000):
        waiting = asyncio.create_task(_use(scheduler, model, keep_alive=1000))
        await until(lambda: scheduler.waiting)
        assert await scheduler.unload(model)
        assert loaded(scheduler) == {"a"}
    await waiting
    await until(lambda: not loaded(scheduler))
    gate.open.clear()
    loading = asyncio.create_task(_use(scheduler, model, keep_alive=1000))
    await until(lambda: len(gate.started) == 2)
    assert await scheduler.unload(model)
    gate.open.set()
    await loading
    await until(lambda: not loaded(scheduler))


async def test_a_load_is_given_up_when_nobody_waits_for_it_any_more(
    make: Make, gate: Gate, files: Files
) -> None:
    """At once: its process ends in the middle of the load, and what it had taken is free."""
    scheduler = make()
    gate.open.clear()
    tasks = [asyncio.create_task(_use(scheduler, files("a"))) for _ in range(2)]
    await until(lambda: gate.started and scheduler.waiting == 2)
    residency = scheduler.find(files("a").key)
    assert residency is not None
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    assert residency.state is State.LOADING, "somebody still waits"
    tasks[1].cancel()
    async with asyncio.timeout(60):
        await residency.task
    assert not list(scheduler.residencies()) and gate.abandoned == ["a"]


async def test_who_comes_while_a_load_is_given_up_gets_another(make: Make, gate: Gate, files: Files) -> None:
    scheduler = make()
    gate.open.clear()
    first = asyncio.create_task(_use(scheduler, files("a")))
    await until(lambda: gate.started)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(_use(scheduler, files("a")))
    await until(lambda: scheduler.waiting == 1)
    gate.open.set()
    async with asyncio.timeout(60):
        await second
    assert loaded(scheduler) == {"a"}


async def test_an_order_to_leave_ends_a_load_that_was_only_to_be_there(
    make: Make, gate: Gate, files: Files
) -> None:
    """Who waits with work for the model still gets it."""
    scheduler = make()
    gate.open.clear()

    async def load() -> None:
        async with scheduler.use(files("a"), keep_alive=1000, load_only=True):
            pass

    loading = asyncio.create_task(load())
    await until(lambda: gate.started)
    async with asyncio.timeout(60):
        assert await scheduler.unload(files("a"))
        with pytest.raises(Unloaded):
            await loading
    assert gate.abandoned == ["a"] and not list(scheduler.residencies())

    loading, working = asyncio.create_task(load()), asyncio.create_task(_use(scheduler, files("a")))
    await until(lambda: scheduler.waiting == 2)
    assert await scheduler.unload(files("a"))
    with pytest.raises(Unloaded):
        await loading
    gate.open.set()
    await working
    await until(lambda: not loaded(scheduler))


async def test_who_comes_after_an_order_to_leave_may_keep_it(make: Make, files: Files) -> None:
    scheduler = make()
    async with scheduler.use(files("a")):
        await scheduler.unload(files("a"))
        waiting = asyncio.create_task(_use(scheduler, files("a"), keep_alive=1000))
        await until(lambda: scheduler.waiting)
    await waiting
    residency = scheduler.find(files("a").key)
    assert residency is not None and residency.expires_in() > 900


async def test_a_pin_outlives_a_crash(make: Make, files: Files) -> None:
    scheduler = make(max_loaded_models=1)
    async with scheduler.use(files("a")) as lease:
        scheduler.keep("a")
        os.kill(lease.runner.pid, signal.SIGKILL)
        await lease.runner.exited
    await until(lambda: not loaded(scheduler))
    await _use(scheduler, files("a"))
    with pytest.raises(LoadError, match="pinned"):
        await _use(scheduler, files("b"))


async def test_a_name_stands_for_the_files_that_it_has_now(make: Make, files: Files) -> None:
    """What was loaded under a name that was given to other files leaves, with its last user."""
    scheduler = make()
    old, new = files("old"), replace(files("new"), name="old")
    async with scheduler.use(old, keep_alive=FOREVER) as lease:
        await _use(scheduler, new)
        assert lease.runner.alive
        assert [r.key for r in scheduler.residencies() if "old" in r.names] == [new.key]
    await until(lambda: loaded(scheduler) == {"new"})
    other = replace(files("new"), name="second")
    await _use(scheduler, other)
    scheduler.forget("old")
    assert [list(r.names) for r in scheduler.residencies()] == [["second"]], "it has another name"
    scheduler.forget("second")
    await until(lambda: not loaded(scheduler))


async def test_unload_by_name_ends_what_has_the_name(make: Make, files: Files) -> None:
    scheduler = make()
    await _use(scheduler, files("a"))
    assert await scheduler.unload(replace(files("b"), name="a"))
    assert not loaded(scheduler)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), TypeError("broken")])
async def test_whatever_ends_a_load_reaches_those_who_wait(
    error: Exception, files: Files, gate: Gate
) -> None:
    failing = True

    async def start(spec: LoadSpec, on_progress: Callable[[float], None]) -> RunnerProcess:
        if failing:
            raise error
        return await start_runner(spec, on_progress)

    scheduler = Scheduler(Defaults(context_length=256), start=start)
    async with asyncio.timeout(20):
        with pytest.raises(LoadError, match=re.escape(str(error))):
            await _use(scheduler, files("a"))
        failing = False
        await _use(scheduler, files("a"))
    await scheduler.close(0)


async def test_no_process_to_be_had_says_so(make: Make, files: Files) -> None:
    """The process may open no file more: neither a socket pair nor a pipe can be made."""
    scheduler = make()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        async with asyncio.timeout(20):
            with pytest.raises(LoadError, match="no process for the model could be started: Too many open"):
                await _use(scheduler, files("a"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await _use(scheduler, files("a"))


async def test_nobody_is_evicted_for_who_has_gone(make: Make, files: Files) -> None:
    scheduler = make(max_loaded_models=1)
    async with scheduler.use(files("a")) as lease:
        task = asyncio.create_task(_use(scheduler, files("b")))
        await until(lambda: any(r.evict for r in scheduler.residencies()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: scheduler.find(files("b").key) is None)
        assert lease.runner.alive
    await _use(scheduler, files("a"))
    assert lease.runner.alive, "the request to go went with them"


async def test_log_lines_carry_the_request_they_speak_of(
    make: Make, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And no other one: a model outlives the request that loaded it."""
    caplog.set_level(logging.INFO, "llm_engine.scheduler")
    scheduler = make(max_loaded_models=1)
    token = logs.request_id.set("first")
    await _use(scheduler, files("a"))
    logs.request_id.reset(token)
    lines: list[dict[str, object]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(logs.JsonFormatter().format(record)))

    handler = Lines()
    logging.getLogger("llm_engine.scheduler").addHandler(handler)
    try:
        async with scheduler.use(files("b"), tag="second"):
            pass
        broken = ModelFiles(name="c", path=str(tmp_path / "none"), shape=Shape())
        with pytest.raises(LoadError):
            async with scheduler.use(broken, tag="third"):
                pass
    finally:
        logging.getLogger("llm_engine.scheduler").removeHandler(handler)
    said = [(line["msg"], line.get("model"), line.get("request_id")) for line in lines]
    assert ("evicting", "a", "second") in said and ("unloaded", "a", None) in said
    assert ("load failed", "c", "third") in said
    assert all(request != "first" for _, _, request in said)


@pytest.mark.parametrize("method", ["machine.Machine.embed", "machine.Machine._make_loop"])
async def test_a_crash_is_logged_with_the_last_lines(
    make: Make,
    files: Files,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """While the model is loaded, and while it loads."""
    scheduler = make()
    monkeypatch.setattr(sys, "executable", broken_runner.program(tmp_path / "runner", method))
    with pytest.raises((LoadError, RunnerError), match="GGML_ASSERT"):
        async with scheduler.use(files("a")) as lease:
            await lease.runner.embed(EmbedRequest(["x"]))
    await until(lambda: not loaded(scheduler))
    told = [record.data for record in caplog.records if hasattr(record, "data")]
    (crash,) = [data for data in told if "last_lines" in data]
    assert crash["last_lines"][-1] == broken_runner.SAYS
    assert "SIGABRT" in crash["reason"] and "Exit(" not in crash["reason"]


async def test_the_queue_bounds_all_who_wait(make: Make, gate: Gate, files: Files) -> None:
    """Those who wait for a load and those who wait for a slot of a loaded model."""
    scheduler = make(max_queue=2)
    gate.open.clear()
    tasks = [asyncio.create_task(_use(scheduler, files("a"))) for _ in range(2)]
    await until(lambda: scheduler.waiting == 2)
    with pytest.raises(Busy, match="maximum pending requests exceeded") as caught:
        await _use(scheduler, files("a"))
    assert caught.value.retry_after >= 1
    gate.open.set()
    await asyncio.gather(*tasks)
    async with scheduler.use(files("a")):
        tasks = [asyncio.create_task(_use(scheduler, files("a"))) for _ in range(2)]
        await until(lambda: scheduler.waiting == 2)
        with pytest.raises(Busy):
            await _use(scheduler, files("a"))
    await asyncio.gather(*tasks)


async def test_no_client_has_all_places(make: Make, files: Files) -> None:
    """The latest request of who waits with many makes way for somebody else's first."""
    scheduler = make(max_queue=4)
    order: list[str] = []
    model = files("a")
    async with scheduler.use(model):
        greedy = [asyncio.create_task(_use(scheduler, model, "greedy", order)) for _ in range(4)]
        await until(lambda: scheduler.waiting == 4)
        modest = [asyncio.create_task(_use(scheduler, model, "modest", order)) for _ in range(3)]
        await asyncio.gather(modest[2], return_exceptions=True)
        assert isinstance(modest[2].exception(), Busy), "two places each is fair"
        assert scheduler.waiting == 4
        with pytest.raises(Busy):
            await _use(scheduler, model, "greedy")
    results = await asyncio.gather(*greedy, *modest[:2], return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 2 + [Busy] * 2 + [type(None)] * 2
    assert order == ["greedy", "modest"] * 2


async def test_clients_take_turns(make: Make, files: Files) -> None:
    scheduler = make()
    order: list[str] = []
    model = files("a")
    async with scheduler.use(model):
        greedy = [asyncio.create_task(_use(scheduler, model, "greedy", order)) for _ in range(4)]
        await until(lambda: scheduler.waiting == 4)
        modest = asyncio.create_task(_use(scheduler, model, "modest", order))
        await until(lambda: scheduler.waiting == 5)
    await asyncio.gather(*greedy, modest)
    assert order.index("modest") == 1


async def test_who_goes_while_waiting_is_forgotten(make: Make, files: Files) -> None:
    scheduler = make()
    async with scheduler.use(files("a")):
        task = asyncio.create_task(_use(scheduler, files("a")))
        await until(lambda: scheduler.waiting == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert scheduler.waiting == 0
    await _use(scheduler, files("a"))


async def test_a_load_that_stalls_is_ended(make: Make, gate: Gate, files: Files) -> None:
    scheduler = make(load_timeout=0.1)
    gate.open.clear()
    with pytest.raises(LoadError, match="timed out waiting for the model to load"):
        await _use(scheduler, files("a"))
    assert not loaded(scheduler)


async def test_a_load_that_fails_says_why_and_can_be_tried_again(
    make: Make, files: Files, tmp_path: Path
) -> None:
    scheduler = make()
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    broken = ModelFiles(name="a", path=str(path), shape=Shape())
    for _ in range(2):
        with pytest.raises(LoadError):
            await _use(scheduler, broken)
    path.unlink()
    await _use(scheduler, files("a"))


async def test_a_model_too_large_is_refused_with_figures(make: Make, files: Files) -> None:
    scheduler = make()
    huge = ModelFiles(name="a", path=files("a").path, shape=Shape(layers=(1 << 50,), kv_elements=(1,)))
    with pytest.raises(LoadError, match=r"requires more system memory \(1048576\.\d GiB\) than is available"):
        await _use(scheduler, huge)


async def test_a_runner_that_dies_is_replaced(make: Make, files: Files) -> None:
    scheduler = make()
    async with scheduler.use(files("a")) as lease:
        os.kill(lease.runner.pid, signal.SIGKILL)
        await lease.runner.exited
    async with scheduler.use(files("a")) as lease:
        assert lease.runner.alive and lease.load_seconds > 0


async def test_close_refuses_and_stops_everything(make: Make, files: Files) -> None:
    scheduler = make()
    async with scheduler.use(files("a")) as lease:
        await scheduler.close(0.05)
        assert not lease.runner.alive
    with pytest.raises(ShuttingDown):
        await _use(scheduler, files("a"))


async def test_what_generates_nothing_waits_for_no_slot(make: Make, files: Files) -> None:
    scheduler = make(num_parallel=1, max_queue=1)
    model = files("a")
    async with scheduler.use(model):
        waiting = asyncio.create_task(use_once(scheduler, model))
        await until(lambda: scheduler.waiting == 1)
        for kind in ({"slotless": True}, {"load_only": True}):  # the queue is full, too
            async with asyncio.timeout(20), scheduler.use(model, **kind) as lease:
                assert await lease.runner.tokenize("hello", add_special=False, parse_special=False)
                assert not waiting.done(), "the slot is not free for it"
        residency = next(scheduler.residencies())
        assert (residency.active, residency.slotless, residency.free_slot) == (1, 0, False)
    await waiting


async def use_once(scheduler: Scheduler, model: ModelFiles) -> None:
    async with scheduler.use(model):
        pass

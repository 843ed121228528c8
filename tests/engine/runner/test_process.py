"""The life and death of the child: loading, failing to load, being killed in every phase, stopping,
idling.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from llm_engine.runner.messages import (
    Accepted,
    Adapter,
    Done,
    EmbedRequest,
    Failed,
    GenerateRequest,
    Grammar,
    LoadSpec,
    SamplingParams,
    Started,
    Tokens,
)
from llm_engine.scheduler.process import LoadDied, LoadFailed, RunnerError, RunnerProcess

from tests.engine.runner.conftest import RequestFailed, Runners, ask
from tests.engine.scheduler.conftest import until
from tests.support import broken_runner

GREEDY = SamplingParams(temperature=0)


async def test_progress_is_a_fraction_that_grows_to_one(random_model: Path) -> None:
    seen: list[float] = []
    runner = await RunnerProcess.start(LoadSpec(str(random_model), num_ctx=64), seen.append)
    await runner.stop()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert all(0 <= fraction <= 1 for fraction in seen)


async def test_tells_what_was_loaded(start: Runners, chat_gguf: Path) -> None:
    info = (await start(chat_gguf, num_ctx=256, num_parallel=2)).info
    assert (info.n_ctx, info.cells, info.pooling, info.generates) == (256, 512, "none", True)
    assert info.chat_template is not None and "im_start" in info.chat_template
    assert info.size == sum(info.memory.values()) > 0
    assert info.size_vram == 0
    assert info.cache_mode == "prefix"
    assert (info.bos_text, info.eos_text) == ("<s>", "</s>")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model_path": "/nowhere/x.gguf"}, "no model file"),
        ({"kv_type": "q9"}, "kv_type 'q9' is not one of"),
        ({"flash_attn": "maybe"}, "flash_attn"),
        ({"split_mode": "x"}, "split_mode"),
        ({"numa": "x"}, "numa"),
        ({"adapters": (Adapter("/nowhere/a.gguf"),)}, "no adapter file"),
        ({"mmproj": "/nowhere/m.gguf"}, "no projector file"),
        ({"draft": "/nowhere/d.gguf"}, "no model file"),
    ],
)
async def test_a_load_that_cannot_work_says_why(
    random_model: Path, settings: dict[str, object], says: str
) -> None:
    spec = LoadSpec(**{"model_path": str(random_model), "num_ctx": 64, **settings})  # type: ignore[arg-type]
    with pytest.raises(LoadFailed, match=says):
        await RunnerProcess.start(spec)


async def test_a_file_that_is_no_model_fails_with_llama_cpp_s_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"not a model at all" * 100)
    with pytest.raises(LoadFailed, match=r"could not load .*bad\.gguf: .*"):
        await RunnerProcess.start(LoadSpec(str(path)))


@pytest.fixture
def short_model(tmp_path: Path, random_model: Path) -> Path:
    path = tmp_path / "short.gguf"
    data = random_model.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


async def test_a_truncated_model_fails_to_load(short_model: Path) -> None:
    with pytest.raises(LoadFailed):
        await RunnerProcess.start(LoadSpec(str(short_model)))


async def loading(model: Path) -> tuple[asyncio.Task[RunnerProcess], psutil.Process]:
    """A load that has begun, and the process that loads."""
    before = set(psutil.Process().children())
    load = asyncio.create_task(RunnerProcess.start(LoadSpec(str(model))))
    async with asyncio.timeout(20):
        while not (new := set(psutil.Process().children()) - before):  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # nothing announces a new process
    return load, new.pop()


async def test_a_load_is_abandoned_by_cancelling_it(random_model: Path) -> None:
    load, child = await loading(random_model)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert not child.is_running()


async def test_killed_while_idle(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    os.kill(runner.pid, signal.SIGKILL)
    exit_ = await runner.exited
    assert "SIGKILL" in exit_.reason and not exit_.expected
    with pytest.raises(RequestFailed) as failed:
        await ask(runner, GenerateRequest("x"))
    assert failed.value.kind == "crashed"
    with pytest.raises(RunnerError):
        await runner.tokenize("x")
    assert (await runner.stop()).returncode == -signal.SIGKILL


@pytest.mark.parametrize("phase", ["reading", "writing", "queued", "asking"])
async def test_killed_while_busy_fails_what_was_open_and_nothing_hangs(
    start: Runners, endless_gguf: Path, phase: str
) -> None:
    runner = await start(endless_gguf, num_ctx=8192, num_parallel=1, num_batch=32)
    prompt = "long " * 700 if phase == "reading" else "Hello"

    async def consume() -> Failed:
        async with aclosing(runner.generate(GenerateRequest(prompt, sampling=GREEDY))) as events:
            async for event in events:
                if isinstance(event, Failed):
                    return event
                if phase in ("writing", "asking") and isinstance(event, Tokens):
                    started.set()
        raise AssertionError("it ended without failing")

    started = asyncio.Event()
    open_ = [asyncio.create_task(consume()) for _ in range(3 if phase == "queued" else 1)]
    if phase in ("writing", "asking"):
        await started.wait()
    else:
        async with asyncio.timeout(20):
            while (stats := await runner.stats()).prefilling + stats.running == 0:
                pass
    asking = asyncio.create_task(runner.stats()) if phase == "asking" else None
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        for failed in await asyncio.gather(*open_):
            assert failed.kind == "crashed"
            assert "SIGKILL" in failed.text
        if asking is not None:
            await asyncio.gather(asking, return_exceptions=True)
        assert not (await runner.exited).expected


async def test_killed_while_embedding(start: Runners, random_model: Path) -> None:
    """Seconds of work, of which nothing can be done yet when the runner has answered a later question."""
    runner = await start(random_model, num_ctx=2048)
    texts = ["w" * 2000] * 300
    embedding = asyncio.create_task(runner.embed(EmbedRequest(texts)))
    writing = asyncio.create_task(ask(runner, GenerateRequest("Hello", max_tokens=2000)))
    await runner.tokenize("x")
    assert not embedding.done()
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        with pytest.raises(RunnerError, match="SIGKILL") as failed:
            await embedding
        assert failed.value.kind == "crashed"
        with pytest.raises(RequestFailed, match="SIGKILL"):
            await writing


async def test_killed_while_loading(random_model: Path) -> None:
    load, child = await loading(random_model)
    child.kill()
    with pytest.raises(LoadFailed, match="SIGKILL"):
        await load


async def test_an_assertion_of_llama_cpp_is_told_in_its_words(
    start: Runners, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            sys, "executable", broken_runner.program(tmp_path / "runner", "machine.Machine.embed")
        )
        runner = await start(random_model)
    with pytest.raises(RunnerError) as failed:
        await runner.embed(EmbedRequest(["a"]))
    assert failed.value.text == (
        "the model runner has terminated: killed by SIGABRT (assertion failed): " + broken_runner.SAYS
    )
    assert runner.last_lines[-1] == broken_runner.SAYS


async def test_an_assertion_during_a_load_is_told_with_the_last_lines(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            sys, "executable", broken_runner.program(tmp_path / "runner", "machine.Machine._make_loop")
        )
        with pytest.raises(LoadDied, match=r"SIGABRT .*GGML_ASSERT") as failed:
            await RunnerProcess.start(LoadSpec(str(random_model)))
    assert failed.value.last_lines[-1] == broken_runner.SAYS


async def test_a_grammar_that_cannot_be_read_is_not_among_the_last_lines(
    start: Runners, random_model: Path
) -> None:
    runner = await start(random_model)
    for gbnf in ("secret-rule ::= (\nfailed to parse it", 'root ::= "secret" ('):
        with pytest.raises(RequestFailed, match="could not be parsed"):
            await ask(runner, GenerateRequest("x", grammar=Grammar(gbnf=gbnf)))
    async with asyncio.timeout(20):
        while not any("failed to parse grammar" in line for line in runner.last_lines):
            await runner.stats()
    assert "secret" not in "".join(runner.last_lines)


async def test_stopping_ends_the_process_and_is_no_crash(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    process = psutil.Process(runner.pid)
    first = await runner.stop()
    assert first.expected and first.returncode == 0
    assert await runner.stop() == first
    assert not process.is_running()


async def test_a_runner_that_does_not_listen_is_killed_after_the_grace(
    start: Runners, random_model: Path
) -> None:
    runner = await start(random_model)
    os.kill(runner.pid, signal.SIGSTOP)
    exit_ = await runner.stop(grace=0.2)
    assert exit_.expected and exit_.returncode == -signal.SIGKILL


def test_a_runner_dies_with_its_server(random_model: Path, tmp_path: Path) -> None:
    """Even when the server is killed with no chance to clean up."""
    script = textwrap.dedent(f"""
        import asyncio
        from llm_engine.runner.messages import LoadSpec
        from llm_engine.scheduler.process import RunnerProcess

        async def main():
            runner = await RunnerProcess.start(LoadSpec({str(random_model)!r}, num_ctx=64))
            print(runner.pid, flush=True)
            await runner.exited

        asyncio.run(main())
    """)
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    child = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    server.stdout.close()
    child.wait(timeout=10)


async def test_idle_costs_nothing(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    await ask(runner, GenerateRequest("warm", max_tokens=3))
    process = psutil.Process(runner.pid)
    before = process.cpu_times()
    await asyncio.sleep(1.0)  # the measurement is of a second in which nothing is asked
    after = process.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.02


async def test_a_server_that_does_not_read_does_not_stop_the_runner(
    start: Runners, endless_gguf: Path
) -> None:
    runner = await start(endless_gguf, num_ctx=4096)
    async with aclosing(
        runner.generate(GenerateRequest("Hello", max_tokens=2000, echo_tokens=True))
    ) as events:
        assert isinstance(await anext(events), Accepted)
        assert isinstance(await anext(events), Started)
        first = await anext(events)
        assert isinstance(first, Tokens)
        count = len(first.ids)
        # Nothing is taken from the stream while the runner works on.
        while (await runner.stats()).generated_tokens < 2000:
            pass
        async for event in events:
            count += len(event.ids) if isinstance(event, Tokens) else 0
    assert count == 2000


async def test_a_long_text_keeps_nobody_waiting(start: Runners, embedding_gguf: Path) -> None:
    """Its tokens take seconds to find, as none of its characters has a token of its own; meanwhile short
    texts are tokenised and embedded."""
    runner = await start(embedding_gguf, num_ctx=64, embedding=True)
    long = "\u4e00\u4e8c\u4e09 " * 20_000
    slow = [
        asyncio.ensure_future(runner.tokenize(long)),
        asyncio.ensure_future(runner.embed(EmbedRequest([long]))),
    ]
    assert await runner.tokenize("short") and (await runner.embed(EmbedRequest(["short"]))).tokens
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await runner.embed(EmbedRequest(["after"]))).tokens


async def test_an_answer_that_nobody_reads_is_none_that_the_runner_owes(
    start: Runners, random_model: Path
) -> None:
    """Its client stalls; the runner has done its work, and is not to be taken for a frozen one."""
    runner = await start(random_model, num_ctx=256)
    request = GenerateRequest("hello", max_tokens=8, n=2)
    async with aclosing(runner.generate(request)) as events, asyncio.timeout(20):
        await anext(events)
        await until(lambda: not runner.owes)
        rest = [event async for event in events]
    assert sum(isinstance(event, Done) for event in rest) == 2

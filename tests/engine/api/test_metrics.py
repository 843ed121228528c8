"""What Prometheus is told of models that come, wait, fail and go."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_engine.models.scripted import build

from tests.engine.api.test_lifecycle import ENDLESS, stream_in_thread, wait_for
from tests.support.engine import EngineServer, add_model, start_engine

FEW = {"prompt": "a", "stream": False, "options": {"num_predict": 1}}


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """Room for one model, and for one request at a time."""
    work = tmp_path_factory.mktemp("metrics")
    shutil.copytree(model_store, work / "models", copy_function=os.link)
    wrong = build(work / "wrong.gguf", {None: "x"}, metadata={"llama.embedding_length": 96})
    add_model(work / "models", "wrong", wrong)
    server = start_engine(
        work / "models", work / "log", OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_NUM_PARALLEL="1"
    )
    yield server
    server.stop()


def value(server: EngineServer, name: str, **labels: str) -> float:
    """A series of /metrics; 0 where it has not begun."""
    told = "".join(f'{key}="{labels[key]}",' for key in sorted(labels)).rstrip(",")
    series = f"llm_engine_{name}{{{told}}}" if told else f"llm_engine_{name}"
    text = server.client.get("/metrics").body.decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_models_that_come_and_go(server: EngineServer) -> None:
    for model in ("chat", "fim", "chat"):
        assert server.client.post("/api/generate", {"model": model, **FEW}).status == 200
    chat, fim = "chat:latest", "fim:latest"
    assert (value(server, "loads_total", model=chat), value(server, "loads_total", model=fim)) == (2, 1)
    assert value(server, "evictions_total", model=chat) == value(server, "evictions_total", model=fim) == 1
    assert value(server, "load_seconds_count", model=chat) == 2
    assert value(server, "load_seconds_sum", model=chat) > 0
    assert value(server, "loaded_models") == 1
    ram, vram = (value(server, f"model_{kind}_bytes", model=chat) for kind in ("ram", "vram"))
    (loaded,) = server.client.get("/api/ps").json["models"]
    assert ram > 0 and (ram + vram, vram) == (loaded["size"], loaded["size_vram"])
    assert value(server, "request_seconds_count", route="/api/generate") == 3
    assert value(server, "queue_wait_seconds_count", model=chat) == 2
    wait_for(lambda: value(server, "event_loop_lag_seconds_count") > 0)


def test_a_load_that_fails(server: EngineServer) -> None:
    failed = server.client.post("/api/generate", {"model": "wrong", **FEW})
    assert failed.status == 500
    assert value(server, "load_failures_total", model="wrong:latest") == 1
    assert value(server, "loads_total", model="wrong:latest") == 0


def test_those_that_wait(server: EngineServer) -> None:
    first, _ = stream_in_thread(server, "/api/generate", ENDLESS)
    assert value(server, "queue_length") == 0
    second, lines = stream_in_thread(server, "/api/generate", {**ENDLESS, "options": {"num_predict": 1}})
    wait_for(lambda: value(server, "queue_length") == 1)
    assert not lines
    (runner,) = wait_for(lambda: server.runners() if len(server.runners()) == 1 else ())
    os.kill(runner, signal.SIGKILL)
    for thread in (first, second):
        thread.join(60)
        assert not thread.is_alive()
    assert value(server, "queue_length") == 0
    assert value(server, "runner_crashes_total", model="endless:latest") >= 1


def test_a_responses_stream_whose_runner_dies(server: EngineServer) -> None:
    """OpenAI's newer API has an event of its own for it, and it is the last one."""
    body = {"model": "endless", "input": "go", "stream": True, "max_output_tokens": 10**6}
    thread, lines = stream_in_thread(server, "/v1/responses", body)
    wait_for(lambda: any(b"output_text.delta" in line for line in lines) or not thread.is_alive())
    (runner,) = wait_for(lambda: server.runners() if len(server.runners()) == 1 else ())
    os.kill(runner, signal.SIGKILL)
    thread.join(60)
    assert not thread.is_alive()
    names = [line.decode().removeprefix("event: ").strip() for line in lines if line.startswith(b"event: ")]
    assert names[0] == "response.created" and names[-1] == "response.failed"
    assert names.count("response.failed") == 1 and "response.completed" not in names
    last = [line for line in lines if line.startswith(b"data: ")][-1]
    assert b'"status":"failed"' in last and b'"code":"runner_crashed"' in last

"""A GPU that disappears while the server runs: noticed, named as the cause, and never replaced by the CPU in
silence. The driver's library is a stand-in that reads from a file how many GPUs there are; all else is
real."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.api.test_lifecycle import ENDLESS, stream_in_thread, wait_for
from tests.support.engine import EngineServer, start_engine

LIBRARY = """
import time
from pathlib import Path
from types import SimpleNamespace
STATE = Path(__file__).with_name("gpus")
class NVMLError(Exception): pass
def _gpus():
    while (text := STATE.read_text()) == "hangs": time.sleep(0.02)
    if not text.isdigit(): raise NVMLError(text)
    return int(text)
def nvmlInit(): _gpus()
def nvmlDeviceGetCount(): return _gpus()
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return "Stand-in"
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(total=8 << 30, free=6 << 30)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Callable[[str], None]:
    """Says how many GPUs there are, or what the driver answers instead."""
    (tmp_path / "pynvml.py").write_text(LIBRARY)

    def says(text: str) -> None:
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").replace(tmp_path / "gpus")

    says("1")
    return says


@pytest.fixture
def server(driver: Callable[[str], None], model_store: Path, tmp_path: Path) -> Iterator[EngineServer]:
    server = start_engine(
        model_store, tmp_path / "log", PYTHONPATH=str(tmp_path), OLLAMA_CONTEXT_LENGTH="512"
    )
    yield server
    server.stop()


def test_a_lost_gpu_is_reported(driver: Callable[[str], None], server: EngineServer) -> None:
    client = server.client
    thread, lines = stream_in_thread(server, "/api/generate", ENDLESS)
    wait_for(lambda: len(lines) > 2)
    assert client.get("/readyz").status == 200
    driver("GPU is lost")
    assert client.get("/readyz").json == {"status": "gpu lost: GPU is lost"}
    assert client.get("/api/status").json["gpu_lost"] == "GPU is lost"
    wait_for(lambda: any(line["msg"] == "gpu lost" for line in server.lines()), 20)
    assert "llm_engine_gpu_lost_total 1.0" in client.get("/metrics").body.decode()
    os.kill(server.runners()[0], signal.SIGABRT)  # what CUDA's own error handling comes to
    thread.join(20)
    error = json.loads(lines[-1])["error"]
    assert error.startswith("gpu lost: GPU is lost; ") and "SIGABRT" in error
    question = {"model": "endless", "prompt": "go", "stream": False, "options": {"num_predict": 3}}
    refused = client.post("/api/generate", question)
    assert refused.status == 500 and refused.json["error"].startswith(
        "gpu lost: GPU is lost; the model is not"
    )
    on_cpu = {**question, "options": {"num_predict": 3, "num_gpu": 0}}
    assert client.post("/api/generate", on_cpu).status == 200
    driver("1")
    wait_for(lambda: any(line["msg"] == "gpu is back" for line in server.lines()), 20)
    assert client.get("/readyz").status == 200
    assert client.post("/api/generate", question).status == 200


def test_a_gpu_less_is_said_but_serves(
    driver: Callable[[str], None], model_store: Path, tmp_path: Path
) -> None:
    driver("2")
    server = start_engine(model_store, tmp_path / "log", PYTHONPATH=str(tmp_path))
    try:
        driver("1")
        assert server.client.get("/readyz").json == {"status": "gpu lost: 1 of 2 GPUs answer"}
        body = {"model": "chat", "prompt": "x", "stream": False}
        assert server.client.post("/api/generate", body).status == 200
        assert any(line["msg"] == "loading with fewer GPUs than at start" for line in server.lines())
    finally:
        server.stop()


def test_a_driver_that_hangs_takes_nothing_along(driver: Callable[[str], None], server: EngineServer) -> None:
    client = server.client
    body = {"model": "chat", "prompt": "x", "stream": False}
    assert client.post("/api/generate", body).status == 200
    driver("hangs")
    asked = client.get("/readyz")
    assert asked.json == {"status": "gpu lost: the driver has not answered for 2 s"}
    assert client.post("/api/generate", body).status == 200, "what is loaded still answers"
    other = client.post("/api/generate", {**body, "model": "fim"})
    assert other.status == 500 and "the driver has not answered" in other.json["error"]
    assert client.post("/api/generate", {**body, "model": "fim", "options": {"num_gpu": 0}}).status == 200
    assert client.get("/healthz").status == 200
    driver("1")
    wait_for(lambda: client.get("/readyz").status == 200)

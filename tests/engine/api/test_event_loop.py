"""No request holds up the others: the event loop is never kept for more than 50 ms, by computing, waiting or
another thread, whatever clients send, and 64 streams of which many are given up leave nothing behind."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import shutil
import string
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llm_engine.models.names import Name
from llm_engine.models.store import ModelStore

from tests.engine.api.test_lifecycle import running, wait_for
from tests.engine.api.test_ollama_routes import HI, WEATHER
from tests.support import measured_engine, random_gguf
from tests.support.engine import EngineServer, add_model, start_engine

MOST = 0.05
STREAMS = 64
CELLS = re.compile(r"llm_engine_kv_cells_used\{.*?\} (\S+)")
LONG = "alpha beta gamma delta " * 4400
PROGRAM = (sys.executable, str(Path(__file__).parents[2] / "support" / "measured_engine.py"))
# Every character is a token: a text of 100,000 characters has as many tokens, which takes the model itself
# no time to find out.
LETTERS = [*string.ascii_letters, *string.digits, "▁", *'.,:_{}[]()<>|-+*/="!?;']


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop") / "report"


@pytest.fixture(scope="module")
def server(
    model_store: Path, report: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    work = tmp_path_factory.mktemp("letters")
    gguf = random_gguf.build(work / "letters.gguf", layers=1, context=512, words=LETTERS)
    # Of its own, with more models than anybody lists in one go.
    models = work / "models"
    shutil.copytree(model_store, models, copy_function=os.link)
    add_model(models, "letters", gguf, template="{{ range .Messages }}{{ .Content }} {{ end }}")
    for number in range(200):
        ModelStore(models).copy(Name.parse("chat"), Name.parse(f"copy-{number}"))
    server = start_engine(models, work / "log", program=(*PROGRAM, str(report)))
    report.write_text("")  # what it did before it listened kept nobody waiting
    yield server
    server.stop()


def schema(properties: int) -> dict[str, Any]:
    fields = {f"field_{number}": {"type": "string", "enum": ["a", "b"]} for number in range(properties)}
    return {"type": "object", "properties": fields}


def conversation(length: int) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": f"message {at}"} for at in range(length)]


def test_no_request_blocks_the_loop(server: EngineServer, report: Path) -> None:
    picture = base64.b64encode(os.urandom(4 << 20)).decode()
    # A body of 11 MB. One that is larger keeps the interpreter for about a millisecond per megabyte where its
    # pieces are put together.
    large = base64.b64encode(os.urandom(8 << 20)).decode()
    url = f"data:image/png;base64,{picture}"
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    blob = os.urandom(8 << 20)
    few = {"num_predict": 1}
    head = b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    sound = head % (b"model", b"chat") + head % (b"file", os.urandom(8 << 20)) + b"--edge--\r\n"
    asked = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    shown = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    tools = [{**WEATHER, "function": {**WEATHER["function"], "name": f"tool_{n}"}} for n in range(20)]  # type: ignore[dict-item]
    likely: dict[str, Any] = {"model": "endless", "max_tokens": 1000}
    requests: list[tuple[str, Any, int]] = [
        ("/api/tokenize", {"model": "letters", "content": LONG}, 200),
        ("/api/detokenize", {"model": "letters", "tokens": [5, 6, 7, 8] * 50_000}, 200),
        ("/api/generate", {"model": "letters", "prompt": LONG, "stream": False, "options": few}, 200),
        ("/v1/completions", {"model": "letters", "prompt": [5, 6] * 50_000, "max_tokens": 1}, 200),
        ("/v1/chat/completions", {"model": "letters", "messages": conversation(1501), "max_tokens": 1}, 200),
        ("/v1/messages", {"model": "letters", "messages": conversation(1501), "max_tokens": 1}, 200),
        ("/api/chat", {"model": "chat", "messages": HI, "format": schema(400), "options": few}, 200),
        ("/v1/chat/completions", {"model": "tool", "messages": HI, "tools": tools, "max_tokens": 1}, 200),
        ("/api/chat", {"model": "chat", "messages": [{"role": "user", "images": [picture]}]}, 400),
        ("/api/chat", {"model": "chat", "messages": [{"role": "user", "images": [large]}]}, 400),
        ("/v1/responses", {"model": "chat", "input": asked}, 400),
        ("/v1/messages", {"model": "chat", "max_tokens": 1, "messages": shown}, 400),
        ("/api/chat", {"model": "chat", "messages": HI, "more": [[n] for n in range(99_000)]}, 200),
        ("/api/chat", {"model": "chat", "messages": HI, "more": [[n] for n in range(300_000)]}, 413),
        ("/api/chat", {"model": "chat", "messages": HI, "more": list(range(1_000_000))}, 413),
        ("/v1/embeddings", {"model": "embed", "input": [[5, 6, 7]] * 200, "encoding_format": "base64"}, 200),
        ("/api/embed", {"model": "embed", "input": ["x"] * 200}, 200),
        (f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}", blob, 201),
        ("/api/show", {"model": "letters", "verbose": True}, 200),
        ("/v1/audio/transcriptions", sound, 400),
        ("/v1/chat/completions", {**likely, "messages": HI, "logprobs": True, "top_logprobs": 20}, 200),
    ]  # fmt: skip
    pages: list[Callable[[], Any]] = [
        lambda path=path: server.client.get(path)  # type: ignore[misc]
        for path in ("/metrics", "/openapi.json", "/api/tags", "/api/ps", "/api/status", "/v1/models")
    ]

    def ask(request: tuple[str, Any, int]) -> None:
        path, body, status = request
        if isinstance(body, dict) and "stream" not in body and path == "/api/chat":
            body = {**body, "stream": False}
        headers = (
            {"Content-Type": "multipart/form-data; boundary=edge"} if path.startswith("/v1/audio") else {}
        )
        answer = server.client.post(path, body, **headers)
        assert answer.status == status, (path, answer.body[:300])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, requests))
        assert all(answer.status == 200 for answer in pool.map(lambda page: page(), pages))
    assert not measured_engine.slow(report, MOST)


def one(engine: EngineServer, number: int) -> str:
    """A whole answer, or a stream that is left after a few lines."""
    source = random.Random(number)
    path = ("/api/chat", "/v1/chat/completions", "/v1/messages")[number % 3]
    leave = source.random() < 0.5
    body = {"model": "endless" if leave else "chat", "messages": HI, "stream": True, "max_tokens": 500}
    if path == "/api/chat":
        body["options"] = {"num_predict": 500}
    lines = engine.client.stream(path, body)
    last = b""
    for count, line in enumerate(lines):
        last = line if line.strip() else last
        if leave and count >= source.randrange(1, 6):
            lines.close()  # type: ignore[attr-defined]
            return "left"
    assert b"error" not in last, last
    return "whole"


def test_64_streams_with_disconnects_leave_nothing(server: EngineServer, report: Path) -> None:
    """No slot, no task, no socket, no file, no cell of the cache; and the loop was never busy for long."""
    client = server.client
    for model in ("chat", "endless"):
        client.post("/api/generate", {"model": model})
    wait_for(lambda: not running(server))
    files, tasks = server.open_files(), client.get("/api/status").json["tasks"]
    with ThreadPoolExecutor(STREAMS) as pool:
        outcomes = list(pool.map(lambda number: one(server, number), range(STREAMS)))
    assert set(outcomes) == {"left", "whole"}
    wait_for(lambda: not client.get("/api/status").json["requests"])
    wait_for(lambda: server.open_files() <= files + 2)
    # Those of the request that asks, and nothing that was there before has ended.
    wait_for(lambda: client.get("/api/status").json["tasks"] <= tasks)
    status = client.get("/api/status").json
    assert status["queue"]["waiting"] == 0
    assert all(model["active"] == 0 and model["queued"] == 0 for model in status["models"])
    wait_for(lambda: all(float(used) == 0 for used in CELLS.findall(client.get("/metrics").body.decode())))
    assert not measured_engine.slow(report, MOST)


BUSY = {
    "computing": "end = time.thread_time() + 0.1\n    while time.thread_time() < end: pass",
    "waiting for a file or a socket": "time.sleep(0.5)",
    "another thread that keeps the interpreter": (
        "threading.Thread(target=sum, args=(range(40_000_000),)).start()"
    ),
}


@pytest.mark.parametrize("how", BUSY)
def test_the_measurement_sees_a_block(tmp_path: Path, model_store: Path, how: str) -> None:
    """A server whose loop is held up is found out, in whatever way it is."""
    report = tmp_path / "report"
    made = tmp_path / "blocked.py"
    made.write_text(
        "import sys, threading, time\n"
        "from llm_engine.api import admin\n"
        "def busy(*_):\n"
        f"    {BUSY[how]}\n"
        "    return b''\n"
        "admin.goencode.dumps = busy\n"
        f"exec(compile(open({PROGRAM[1]!r}).read(), 'measured', 'exec'))\n"
    )
    server = start_engine(model_store, tmp_path / "log", program=(sys.executable, str(made), str(report)))
    report.write_text("")
    try:
        server.client.get("/api/version")
        wait_for(lambda: measured_engine.slow(report, MOST))
        first = measured_engine.slow(report, MOST)[0]
        assert how != "computing" or any("busy" in place for place in first["stack"])
    finally:
        server.stop()

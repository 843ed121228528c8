"""Many streams at once, many of them given up half-way: nothing is left behind."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor

from tests.engine.api.test_lifecycle import running, wait_for
from tests.engine.api.test_ollama_routes import HI
from tests.support.engine import EngineServer

STREAMS = 64
ROUNDS = 2


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


def test_64_streams_with_disconnects_leave_nothing(engine: EngineServer) -> None:
    for model in ("chat", "endless"):
        engine.client.post("/api/generate", {"model": model})
    wait_for(lambda: not running(engine))
    files = engine.open_files()
    for turn in range(ROUNDS):
        with ThreadPoolExecutor(STREAMS) as pool:
            outcomes = list(pool.map(lambda n: one(engine, n), range(turn * STREAMS, (turn + 1) * STREAMS)))
        assert set(outcomes) == {"left", "whole"}
    wait_for(lambda: not engine.client.get("/api/status").json["requests"])
    wait_for(lambda: engine.open_files() <= files + 2)
    status = engine.client.get("/api/status").json
    assert status["queue"]["waiting"] == 0
    assert all(model["active"] == 0 and model["queued"] == 0 for model in status["models"])
    wait_for(
        lambda: all(
            float(used) == 0
            for used in re.findall(
                r"llm_engine_kv_cells_used\{.*?\} (\S+)", engine.client.get("/metrics").body.decode()
            )
        )
    )

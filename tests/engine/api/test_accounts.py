"""What requests cost is on the books however they end, and each answer's pace is its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from llm_engine.api.account import Account
from llm_engine.api.endpoint import Call
from llm_engine.api.metrics import Metrics
from llm_engine.runner.messages import Started, Tokens

from tests.engine.api.test_lifecycle import ENDLESS, wait_for
from tests.support.engine import EngineServer, start_engine


@pytest.fixture
def server(model_store: Path, tmp_path: Path) -> Iterator[EngineServer]:
    server = start_engine(model_store, tmp_path / "log", OLLAMA_CONTEXT_LENGTH="512", OLLAMA_NUM_PARALLEL="1")
    yield server
    server.stop()


def value(server: EngineServer, name: str) -> float:
    text = server.client.get("/metrics").body.decode()
    found = re.search(rf'^llm_engine_{name}{{.*"endless:latest".*}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_cancelled_answer_is_counted_with_its_tokens(server: EngineServer) -> None:
    connection, response = server.client.open("POST", "/api/generate", ENDLESS)
    for _ in range(3):
        response.readline()
    waiting = http.client.HTTPConnection(server.client.host, server.client.port)
    waiting.request("POST", "/api/generate", json.dumps({**ENDLESS, "prompt": "waits"}))
    wait_for(lambda: server.client.get("/api/status").json["queue"]["waiting"] == 1)
    waiting.close()
    wait_for(lambda: value(server, "cancelled_total") == 1)
    assert value(server, "completion_tokens_total") == 0, "it has not begun"
    response.close()
    connection.close()
    wait_for(lambda: value(server, "cancelled_total") == 2)
    assert value(server, "completion_tokens_total") >= 3
    assert value(server, "prompt_tokens_total") >= 1
    whole = {**ENDLESS, "options": {"num_predict": 5}, "stream": False}
    assert server.client.post("/api/generate", whole).status == 200
    assert value(server, "cancelled_total") == 2


def test_an_answer_that_fails_is_counted(server: EngineServer) -> None:
    connection, response = server.client.open("POST", "/api/generate", ENDLESS)
    for _ in range(3):
        response.readline()
    os.kill(server.runners()[0], signal.SIGKILL)
    while response.readline():
        pass
    connection.close()
    assert value(server, "completion_tokens_total") >= 3 and value(server, "prompt_tokens_total") >= 1
    assert value(server, "cancelled_total") == 0


def test_what_is_counted_is_what_was_generated(server: EngineServer) -> None:
    body = {**ENDLESS, "options": {"num_predict": 40}, "stream": False}
    answer = server.client.post("/api/generate", body).json
    assert answer["eval_count"] == 40
    assert value(server, "completion_tokens_total") == 40
    assert value(server, "prompt_tokens_total") == answer["prompt_eval_count"]


def test_each_answer_has_gaps_of_its_own() -> None:
    metrics = Metrics()
    call: Any = SimpleNamespace(engine=SimpleNamespace(metrics=metrics), key="-", started=0.0)
    account = Account(cast(Call, call), "m", silent=False)
    account.note(Started(0, 7, 3))
    for index in (0, 1, 2, 0):
        account.note(Tokens(index, "x", count=2))
    account.close()
    account.close()
    text = metrics.render().decode()
    assert 'llm_engine_token_gap_seconds_count{model="m"} 1.0' in text
    assert 'llm_engine_first_token_seconds_count{model="m"} 1.0' in text
    assert 'llm_engine_completion_tokens_total{model="m"} 8.0' in text
    assert 'llm_engine_prompt_tokens_total{model="m"} 7.0' in text
    assert 'llm_engine_cached_tokens_total{model="m"} 3.0' in text

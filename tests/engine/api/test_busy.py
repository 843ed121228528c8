"""A server with no place left says so in each API's own shape, with when to come back and how long the queue
is; those who wait can see their place."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.api.test_lifecycle import ENDLESS, stream_in_thread, wait_for
from tests.engine.api.test_ollama_routes import HI
from tests.support.engine import EngineServer, start_engine

MAX_QUEUE = 2
SENTENCE = "server busy, please try again.  maximum pending requests exceeded"


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    log = tmp_path_factory.mktemp("busy") / "log"
    server = start_engine(model_store, log, OLLAMA_MAX_QUEUE=str(MAX_QUEUE), OLLAMA_NUM_PARALLEL="1")
    yield server
    server.stop()


@pytest.fixture
def full(server: EngineServer) -> Iterator[list[http.client.HTTPConnection]]:
    """One request runs for ever, and two wait for it."""
    waiting = []
    connection, response = server.client.open("POST", "/api/generate", ENDLESS)
    response.readline()
    for number in range(MAX_QUEUE):
        other = http.client.HTTPConnection(server.client.host, server.client.port)
        other.request("POST", "/api/generate", json.dumps(ENDLESS), {"X-Request-Id": f"waiting-{number}"})
        waiting.append(other)
        wait_for(lambda: server.client.get("/api/status").json["queue"]["waiting"] == len(waiting))
    yield waiting
    response.close()
    for each in (connection, *waiting):
        each.close()
    wait_for(lambda: not server.client.get("/api/status").json["requests"])


def check_headers(headers: Any, queued: int) -> None:
    assert 1 <= int(headers["retry-after"]) <= 30
    assert int(headers["x-queue-length"]) == queued
    assert int(headers["x-queue-position"]) == queued + 1


@pytest.mark.usefixtures("full")
def test_every_api_says_that_the_queue_is_full(server: EngineServer) -> None:
    client = server.client
    chat = {"model": "endless", "messages": HI, "max_tokens": 5}
    native = client.post("/api/chat", chat)
    assert native.status == 503 and native.json == {"error": SENTENCE}
    openai = client.post("/v1/chat/completions", {**chat, "stream": True})
    assert openai.status == 503 and openai.json["error"]["code"] == "queue_full"
    anthropic = client.post("/v1/messages", {**chat, "stream": True})
    assert anthropic.status == 503 and anthropic.json["error"]["type"] == "overloaded_error"
    for answer in (native, openai, anthropic):
        check_headers(answer.headers, MAX_QUEUE)
    assert "llm_engine_rejected_total 3.0" in client.get("/metrics").body.decode()


@pytest.mark.usefixtures("full")
def test_those_who_wait_see_their_place(server: EngineServer) -> None:
    requests = server.client.get("/api/status").json["requests"]
    places = {entry["request_id"]: entry["position"] for entry in requests}
    assert places["waiting-0"] == 1 and places["waiting-1"] == 2
    assert [entry["position"] for entry in requests if entry["state"] == "running"] == [None]


def test_the_runners_own_queue_is_bounded_too(model_store: Path, tmp_path: Path) -> None:
    """One request for many choices fills it: two of them run, the others wait inside the runner."""
    server = start_engine(
        model_store, tmp_path / "log", OLLAMA_MAX_QUEUE=str(MAX_QUEUE), OLLAMA_NUM_PARALLEL="2"
    )
    try:
        many = {"model": "endless", "messages": HI, "n": 9, "max_tokens": 10**6, "stream": True}
        thread, lines = stream_in_thread(server, "/v1/chat/completions", many)
        wait_for(lambda: lines)
        refused = server.client.post("/v1/chat/completions", {**many, "n": 2})
        assert refused.status == 503 and refused.json["error"]["message"] == SENTENCE
        check_headers(refused.headers, MAX_QUEUE)
    finally:
        server.process.kill()
        server.process.wait(10)
    thread.join(20)


def test_without_a_queue_a_model_can_be_loaded_all_the_same(model_store: Path, tmp_path: Path) -> None:
    server = start_engine(model_store, tmp_path / "log", OLLAMA_MAX_QUEUE="0")
    try:
        answer = server.client.post("/api/generate", {"model": "chat", "prompt": "hi", "stream": False})
        assert answer.status == 200, answer.body
    finally:
        server.stop()

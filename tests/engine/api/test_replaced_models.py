"""Models that are deleted, or whose names are given to other files, while they are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.api.test_lifecycle import ENDLESS, stream_in_thread, wait_for
from tests.support.engine import EngineServer, add_model, start_engine

FOREVER = {"prompt": "x", "stream": False, "keep_alive": -1, "options": {"num_predict": 1}}


@pytest.fixture
def server(chat_gguf: Path, endless_gguf: Path, tmp_path: Path) -> Iterator[EngineServer]:
    store = tmp_path / "models"
    add_model(store, "endless", endless_gguf)
    add_model(store, "chat", chat_gguf)
    add_model(store, "one", chat_gguf)
    server = start_engine(store, tmp_path / "log", OLLAMA_CONTEXT_LENGTH="512")
    yield server
    server.stop()


def names(server: EngineServer) -> list[str]:
    return [row["name"] for row in server.client.get("/api/ps").json["models"]]


def test_a_deleted_model_leaves(server: EngineServer, tmp_path: Path) -> None:
    client = server.client
    assert client.post("/api/generate", {**FOREVER, "model": "chat"}).status == 200
    assert client.post("/api/generate", {**FOREVER, "model": "one"}).status == 200
    assert sorted(names(server)) == ["chat:latest", "one:latest"] and len(server.runners()) == 1
    (manifest,) = (tmp_path / "models" / "manifests").glob("*/*/chat/latest")
    whole = manifest.read_bytes()
    manifest.write_bytes(b"{")
    assert len(names(server)) == 2, "what cannot be read now has not been deleted"
    manifest.write_bytes(whole)
    assert client.request("DELETE", "/api/delete", {"model": "chat"}).status == 200
    wait_for(lambda: names(server) == ["one:latest"])
    assert len(server.runners()) == 1, "the weights have another name"
    assert client.request("DELETE", "/api/delete", {"model": "one"}).status == 200
    wait_for(lambda: not server.runners())
    assert names(server) == []


def test_a_replaced_model_leaves_after_its_last_user(server: EngineServer) -> None:
    client = server.client
    connection, response = client.open("POST", "/api/generate", {**ENDLESS, "keep_alive": -1})
    response.readline()
    assert client.post("/api/copy", {"source": "chat", "destination": "endless"}).status == 200
    assert client.post("/api/generate", {**FOREVER, "model": "endless"}).status == 200
    assert names(server) == ["endless:latest"] and len(server.runners()) == 2
    assert response.readline(), "who uses the old one goes on"
    lines = [line for line in client.get("/metrics").body.decode().splitlines() if line[:1] != "#"]
    twice = [line for line, count in Counter(line.rsplit(" ", 1)[0] for line in lines).items() if count > 1]
    assert not twice, "Prometheus takes no scrape in which a series is there twice"
    response.close()
    connection.close()
    wait_for(lambda: len(server.runners()) == 1)
    stopped = client.post("/api/generate", {"model": "endless", "keep_alive": 0})
    assert stopped.json["done_reason"] == "unload"
    assert server.runners() == [] and names(server) == []


def test_an_order_to_leave_holds_while_the_model_is_used(server: EngineServer) -> None:
    thread, lines = stream_in_thread(
        server, "/api/generate", {**ENDLESS, "keep_alive": -1, "options": {"num_predict": 3000}}
    )
    wait_for(lambda: len(lines) > 2)
    server.client.post("/api/generate", {"model": "endless", "keep_alive": 0})
    assert len(server.runners()) == 1
    thread.join(60)
    wait_for(lambda: not server.runners())

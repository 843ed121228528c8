"""A request is ended by its id and by a deadline, not only by its client's leaving; and may leave nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.api import keys

from tests.engine.api.test_lifecycle import wait_for
from tests.support.engine import EngineServer, start_engine
from tests.support.http import Answer

MESSAGES = [{"role": "user", "content": "Hello"}]
WITHOUT_END: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "go", "options": {"num_predict": 10**6}},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 10**6}},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 10**6},
    "/v1/completions": {"prompt": "go", "max_tokens": 10**6},
    "/v1/responses": {"input": "go", "max_output_tokens": 10**6},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 10**6},
}
SAYS = "request canceled"


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    log = tmp_path_factory.mktemp("stopping") / "log"
    server = start_engine(model_store, log, OLLAMA_NUM_PARALLEL="1")
    yield server
    server.stop()


def requests(server: EngineServer) -> dict[str, Any]:
    return {one["request_id"]: one["state"] for one in server.client.get("/api/status").json["requests"]}


class Asking:
    """A request of a client that waits for all of its answer."""

    def __init__(self, server: EngineServer, path: str, name: str, **more: Any) -> None:
        self.answer: Answer | None = None
        body = {"model": "endless", **WITHOUT_END[path], **more}

        def ask() -> None:
            self.answer = server.client.request("POST", path, body, {"X-Request-Id": name})

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()
        wait_for(lambda: name in requests(server) or self.answer)
        assert self.answer is None, self.answer

    def end(self) -> Answer:
        self.thread.join(60)
        assert self.answer is not None
        return self.answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", WITHOUT_END)
def test_a_request_is_stopped_by_its_id_and_its_client_told(
    server: EngineServer, path: str, stream: bool
) -> None:
    asking = Asking(server, path, "the-one", stream=stream)
    if stream:
        wait_for(lambda: requests(server).get("the-one") == "running")
    assert server.client.request("DELETE", "/api/requests/the-one").json == {"stopped": 1}
    answer = asking.end()
    assert SAYS in answer.body.decode()
    if answer.status != 200:
        assert answer.status == 499
        assert SAYS in json.dumps(answer.json["error"])
    assert stream or answer.status == 499
    wait_for(lambda: not requests(server))


def test_who_waits_is_stopped_and_who_runs_goes_on(server: EngineServer) -> None:
    first = Asking(server, "/api/generate", "first", stream=False)
    wait_for(lambda: requests(server)["first"] == "running")
    second = Asking(server, "/api/generate", "second", stream=False)
    assert server.client.request("DELETE", "/api/requests/second").status == 200
    assert second.end().status == 499
    assert requests(server) == {"first": "running"}
    assert server.client.request("DELETE", "/api/requests/first").status == 200
    assert first.end().status == 499


def test_a_request_that_is_not_there_cannot_be_stopped(server: EngineServer) -> None:
    answer = server.client.request("DELETE", "/api/requests/nobody")
    assert (answer.status, answer.json) == (404, {"error": "no request 'nobody' is running or waiting"})


@pytest.mark.parametrize("path", WITHOUT_END)
def test_a_deadline_ends_an_answer_with_what_it_has(server: EngineServer, path: str) -> None:
    body = {"model": "endless", "stream": False, **WITHOUT_END[path]}
    body["options"] = {**body.get("options", {}), "deadline": 0.5}
    answer = server.client.post(path, body)
    assert answer.status == 200
    assert any(word in answer.body.decode() for word in ('"length"', '"max_tokens"', '"max_output_tokens"'))
    for wrong in (-1, "soon"):
        body["options"]["deadline"] = wrong
        refused = server.client.post(path, body)
        assert refused.status == 400 and "deadline" in refused.body.decode()


def test_a_request_may_leave_nothing_for_others(server: EngineServer) -> None:
    def cached(prompt: str, keep: bool) -> int:
        body = {"model": "endless", "prompt": prompt, "max_tokens": 1, "options": {"cache_prompt": keep}}
        usage = server.client.post("/v1/completions", body).json["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    private, public = "what nobody else may see " * 9, "what everybody may see " * 9
    assert cached(public, keep=True) < cached(public, keep=False)
    first = cached(private, keep=False)
    assert cached(private, keep=True) == first < cached(private, keep=True)


def test_with_keys_everybody_stops_his_own(model_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch()
    mine, other = (keys.add(file, name) for name in ("me", "other"))
    server = start_engine(model_store, tmp_path / "log", LLM_ENGINE_KEYS_FILE=str(file))
    try:
        own, foreign = ({"Authorization": f"Bearer {key}"} for key in (mine, other))
        body = {"model": "endless", **WITHOUT_END["/api/generate"]}
        connection, response = server.client.open(
            "POST", "/api/generate", body, headers={**own, "X-Request-Id": "mine"}
        )
        response.readline()
        assert server.client.request("DELETE", "/api/requests/mine", headers=foreign).status == 404
        assert server.client.request("DELETE", "/api/requests/mine", headers=own).status == 200
        assert SAYS in response.read().decode()
        connection.close()
    finally:
        server.stop()

"""Whatever is wrong with a request is a status, also for one that streams: nothing is sent before the runner
itself has taken the request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.api.test_one_path import ROUTES
from tests.support.engine import EngineServer

FAR = 2**30
# Each is found at another place: by the store, the options, the prompt's builder, the runner.
WRONG: dict[str, dict[str, Any]] = {
    "model": {"model": "nope"},
    "option": {"options": {"temperature": "hot"}},
    "logit_bias": {"options": {"logit_bias": {str(FAR): 1.0}}},
    "repeat_penalty": {"options": {"repeat_penalty": 0.0}},
    "grammar": {"options": {"grammar": "root ::= nothing"}},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("model", ["chat", "think"])
@pytest.mark.parametrize("path", ROUTES)
def test_a_stream_that_cannot_be_is_refused(engine: EngineServer, path: str, model: str, wrong: str) -> None:
    body = {"model": model, "stream": True, **ROUTES[path], **WRONG[wrong]}
    answer = engine.client.post(path, body)
    assert answer.status == (404 if wrong == "model" else 400), answer.body[:300]
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("more", [*WRONG.values(), {"prompt": ["a", "b"], "model": "nope"}])
def test_an_echo_waits_for_the_checks(engine: EngineServer, more: dict[str, Any]) -> None:
    body = {"model": "chat", "prompt": "a", "stream": True, "echo": True, **more}
    answer = engine.client.post("/v1/completions", body)
    assert answer.status in (400, 404) and "message" in answer.json["error"]


@pytest.mark.parametrize("prompt", [[[5], [FAR]], [[FAR], [5]], [FAR]])
def test_one_wrong_prompt_of_several_refuses_all(engine: EngineServer, prompt: Any) -> None:
    for stream in (True, False):
        body = {"model": "chat", "prompt": prompt, "stream": stream, "echo": True, "max_tokens": 1}
        answer = engine.client.post("/v1/completions", body)
        assert answer.status == 400 and str(FAR) in answer.json["error"]["message"]


def test_a_prompt_that_does_not_fit_is_refused(engine: EngineServer) -> None:
    long = "x " * 3000
    for path, body in (
        ("/api/generate", {"prompt": long, "truncate": False}),
        ("/api/chat", {"messages": [{"role": "user", "content": long}], "truncate": False}),
        ("/v1/responses", {"input": long}),
    ):
        body = {"model": "chat", "stream": True, "options": {"num_ctx": 64}, **body}
        assert engine.client.post(path, body).status == 400, path

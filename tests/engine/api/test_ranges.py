"""Sampling values outside the range of the API that was called are refused as that API refuses them; the ends
of the range are not. Ollama's own options have no such ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.engine.api.test_one_path import ROUTES
from tests.support.engine import EngineServer

OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
PENALTIES = ("frequency_penalty", "presence_penalty")
WIDE = {"temperature": (0, 2), "top_p": (0, 1)}
CASES = [
    *((path, name, least, most) for path in OPENAI for name, (least, most) in WIDE.items()),
    *((path, name, -2, 2) for path in OPENAI[:2] for name in PENALTIES),
    ("/v1/messages", "temperature", 0, 1),
    ("/v1/messages", "top_p", 0, 1),
]


@pytest.mark.parametrize(("path", "name", "least", "most"), CASES)
def test_values_outside_the_range(
    engine: EngineServer, path: str, name: str, least: float, most: float
) -> None:
    def ask(value: float) -> Any:
        return engine.client.post(
            path, {"model": "chat", **ROUTES[path], "options": {"num_predict": 1}, name: value}
        )

    for value in (least, most):
        assert ask(value).status == 200, value
    for value in (math.nextafter(least, -9), math.nextafter(most, 9), -3.0, 17.0):
        error = ask(value).json["error"]
        assert error["type"] == "invalid_request_error" and name in error["message"], value
        assert path == "/v1/messages" or error["param"] == name


@pytest.mark.parametrize("path", OPENAI[:2])
def test_a_bias_outside_the_range(engine: EngineServer, path: str) -> None:
    for bias, status in ((100, 200), (-100, 200), (101, 400), (-100.5, 400)):
        body = {"model": "chat", **ROUTES[path], "max_tokens": 1, "logit_bias": {"5": bias}}
        assert engine.client.post(path, body).status == status


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_ollamas_options_have_no_such_range(engine: EngineServer, path: str) -> None:
    """A temperature below 0 is the greedy choice, and a `top_p` of 1 or more leaves nothing out."""
    options = {"temperature": -3, "top_p": 17, "num_predict": 1}
    body = {"model": "chat", "stream": False, **ROUTES[path], "options": options}
    assert engine.client.post(path, body).status == 200

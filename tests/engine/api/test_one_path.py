"""One conversation (a tool is called, its result comes, an answer follows) through all four chat APIs."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from llm_engine.runner.messages import SamplingParams

from tests.engine.api.test_ollama_routes import WEATHER
from tests.support.engine import EngineServer
from tests.support.http import Client

QUESTION = "What is the weather in Paris?"
RESULT = "sunny, 21 degrees"
Outcome = tuple[str, dict[str, Any], str, list[tuple[int, int]]]
"""The tool, its arguments, the final answer, and for both turns the tokens that were read and written."""


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def by_ollama(client: Client) -> Outcome:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    body = {"model": "tool", "tools": [WEATHER], "stream": False}
    first = client.post("/api/chat", {**body, "messages": messages}).json
    (call,) = first["message"]["tool_calls"]
    messages += [
        first["message"],
        {"role": "tool", "tool_call_id": call["id"], "tool_name": "get_weather", "content": RESULT},
    ]
    second = client.post("/api/chat", {**body, "messages": messages}).json
    function = call["function"]
    return (
        function["name"],
        function["arguments"],
        second["message"]["content"],
        [(turn["prompt_eval_count"], turn["eval_count"]) for turn in (first, second)],
    )


def by_chat_completions(client: Client) -> Outcome:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    body = {"model": "tool", "tools": [WEATHER]}
    first = client.post("/v1/chat/completions", {**body, "messages": messages}).json
    message = first["choices"][0]["message"]
    (call,) = message["tool_calls"]
    messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": RESULT}]
    second = client.post("/v1/chat/completions", {**body, "messages": messages}).json
    return (
        call["function"]["name"],
        json.loads(call["function"]["arguments"]),
        second["choices"][0]["message"]["content"],
        [(turn["usage"]["prompt_tokens"], turn["usage"]["completion_tokens"]) for turn in (first, second)],
    )


def by_responses(client: Client) -> Outcome:
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    body = {"model": "tool", "tools": [{"type": "function", **WEATHER["function"]}]}  # type: ignore[dict-item]
    first = client.post("/v1/responses", {**body, "input": items}).json
    (call,) = first["output"]
    items += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": RESULT}]
    second = client.post("/v1/responses", {**body, "input": items}).json
    return (
        call["name"],
        json.loads(call["arguments"]),
        second["output"][0]["content"][0]["text"],
        [(turn["usage"]["input_tokens"], turn["usage"]["output_tokens"]) for turn in (first, second)],
    )


def by_messages(client: Client) -> Outcome:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    function: Any = WEATHER["function"]
    tool = {
        "name": function["name"],
        "description": function["description"],
        "input_schema": function["parameters"],
    }
    body = {"model": "tool", "max_tokens": 100, "tools": [tool]}
    first = client.post("/v1/messages", {**body, "messages": messages}).json
    (call,) = first["content"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": RESULT}
    messages += [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
    second = client.post("/v1/messages", {**body, "messages": messages}).json
    usages = [turn["usage"] for turn in (first, second)]
    return (
        call["name"],
        call["input"],
        second["content"][0]["text"],
        [(use["input_tokens"] + use["cache_read_input_tokens"], use["output_tokens"]) for use in usages],
    )


def test_equal_results_through_all_apis(client: Client) -> None:
    expected = by_ollama(client)
    assert expected[:3] == ("get_weather", {"city": "Paris", "days": 3}, "It is sunny in Paris today.")
    assert by_chat_completions(client) == expected
    assert by_responses(client) == expected
    assert by_messages(client) == expected


ROUTES: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "hi"},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
}
SAMPLERS = [field.name for field in fields(SamplingParams)]


@pytest.mark.parametrize("path", ROUTES)
def test_every_sampler_can_be_set_through_every_api(client: Client, path: str) -> None:
    """A value of the wrong type is refused by name, so the option was read."""
    for name in SAMPLERS:
        body = {"model": "chat", "stream": False, **ROUTES[path], "options": {name: {"wrong": []}}}
        refused = client.post(path, body)
        assert refused.status == 400 and f'option \\"{name}\\"' in refused.body.decode(), name


@pytest.mark.parametrize("path", ROUTES)
def test_options_have_their_effect_through_every_api(client: Client, path: str) -> None:
    (token,) = client.post("/api/tokenize", {"model": "chat", "content": "z"}).json["tokens"]
    options = {"logit_bias": {str(token): 1000}, "num_predict": 3, "temperature": 0}
    body = {"model": "chat", "stream": False, **ROUTES[path], "options": options}
    assert '"zzz' in client.post(path, body).body.decode()


def test_a_developer_speaks_as_the_system_through_every_api(client: Client) -> None:
    """The prompt is the same to the token, and takes the place of the model's own system text."""

    def tokens(path: str, role: str) -> int:
        said = [{"role": role, "content": "Answer in French."}, {"role": "user", "content": "hi"}]
        given = {"input": said} if path == "/v1/responses" else {"messages": said, "max_tokens": 4}
        body = {"model": "chat-params", "stream": False, **given}
        answer = client.post(path, body).json
        used = answer.get("usage") or {"prompt_tokens": answer["prompt_eval_count"]}
        return int(used.get("prompt_tokens") or used["input_tokens"] + used.get("cache_read_input_tokens", 0))

    for path in ("/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"):
        assert tokens(path, "developer") == tokens(path, "system"), path

"""A call that the model makes of its own will keeps to its tool's schema, through all four chat APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.api.test_ollama_routes import HI
from tests.support.engine import EngineServer
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, SENTENCE

NAME, ABOUT = "get_weather", "The weather."


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def schema(*cities: str, days: tuple[int, int] = (1, 9)) -> dict[str, Any]:
    """The model says Paris and 3; a schema without them holds it to others."""
    return {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": list(cities)},
            "days": {"type": "integer", "minimum": days[0], "maximum": days[1]},
        },
        "required": ["city", "days"],
    }


def function(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"name": NAME, "description": ABOUT, "parameters": parameters}


def by_chat_completions(client: Client, parameters: dict[str, Any]) -> Any:
    tools = [{"type": "function", "function": function(parameters)}]
    body = {"model": "tool", "messages": HI, "tools": tools, "tool_choice": "auto"}
    (choice,) = client.post("/v1/chat/completions", body).json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    return json.loads(call["function"]["arguments"])


def by_ollama(client: Client, parameters: dict[str, Any]) -> Any:
    tools = [{"type": "function", "function": function(parameters)}]
    body = {"model": "tool", "messages": HI, "tools": tools, "stream": False}
    (call,) = client.post("/api/chat", body).json["message"]["tool_calls"]
    return call["function"]["arguments"]


def by_responses(client: Client, parameters: dict[str, Any]) -> Any:
    body = {"model": "tool", "input": "hi", "tools": [{"type": "function", **function(parameters)}]}
    (call,) = client.post("/v1/responses", body).json["output"]
    return json.loads(call["arguments"])


def by_messages(client: Client, parameters: dict[str, Any]) -> Any:
    tool = {"name": NAME, "description": ABOUT, "input_schema": parameters}
    body = {"model": "tool", "max_tokens": 100, "messages": HI, "tools": [tool]}
    (call,) = client.post("/v1/messages", body).json["content"]
    return call["input"]


@pytest.mark.parametrize("ask", [by_chat_completions, by_ollama, by_responses, by_messages])
def test_arguments_keep_to_the_schema(client: Client, ask: Any) -> None:
    assert ask(client, schema("Paris", "Rome")) == {"city": "Paris", "days": 3}
    held = ask(client, schema("Rome", "Oslo", days=(5, 6)))
    assert held["city"] in ("Rome", "Oslo") and held["days"] in (5, 6)
    assert ask(client, {"type": "object", "properties": {"city": {"const": "Rome"}}}) == {"city": "Rome"}


HOPELESS: list[dict[str, Any]] = [
    {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"type": "object", "anyOf": [{"$ref": "#"}]},
    {"type": "object", "properties": {"days": {"type": "integer", "minimum": "0"}}},
    {"type": "object", "properties": {"city": {"allOf": 5}}},
    {"type": "object", "properties": {"city": {"type": "array", "prefixItems": 5}}},
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": True},
]


@pytest.mark.parametrize("hopeless", HOPELESS, ids=range(len(HOPELESS)))
def test_a_schema_that_makes_no_sense_is_the_clients_mistake(
    client: Client, hopeless: dict[str, Any]
) -> None:
    """Where a form must be kept it is refused; a call of the model's own will needs none."""
    tools = [{"type": "function", "function": function(hopeless)}]
    body = {"model": "tool", "messages": HI, "tools": tools}
    (choice,) = client.post("/v1/chat/completions", body).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    forced = client.post("/v1/chat/completions", {**body, "tool_choice": "required"})
    assert forced.status == 400 and forced.json["error"]["message"].startswith("invalid schema: ")
    formed = client.post("/api/chat", {"model": "tool", "messages": HI, "format": hopeless})
    assert formed.status == 400 and formed.json["error"].startswith("invalid schema: ")


def test_a_wrong_name_becomes_one_of_the_tools(client: Client) -> None:
    tools = [{"type": "function", "function": {**function(schema("Rome")), "name": "set_alarm"}}]
    body = {"model": "tool", "messages": HI, "tools": tools}
    (call,) = client.post("/v1/chat/completions", body).json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "set_alarm"
    assert json.loads(call["function"]["arguments"])["city"] == "Rome"


@pytest.mark.parametrize("name", ['say"hi"', "a\\b", "größe ü", "ns.one/two-3"])
def test_a_forced_call_of_a_tool_with_an_odd_name(client: Client, name: str) -> None:
    tools = [
        {"type": "function", "function": {**function({"type": "object", "properties": {}}), "name": name}}
    ]
    for choice in ("required", {"type": "function", "function": {"name": name}}):
        body = {"model": "tool", "messages": HI, "tools": tools, "tool_choice": choice, "max_tokens": 200}
        (call,) = client.post("/v1/chat/completions", body).json["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == name and isinstance(
            json.loads(call["function"]["arguments"]), dict
        )


def test_the_grammar_sleeps_where_no_call_begins(client: Client) -> None:
    tools = [{"type": "function", "function": function(schema("Rome"))}]
    result = [*HI, {"role": "assistant", "content": "x"}, {"role": "tool", "content": "sunny"}]
    for model, messages, says in (("tool", result, AFTER_TOOL), ("think-tool", HI, "The answer is 42.")):
        body = {"model": model, "messages": messages, "tools": tools}
        message = client.post("/v1/chat/completions", body).json["choices"][0]["message"]
        assert message["content"] == says and not message.get("tool_calls")
    none = {"model": "tool", "messages": HI, "tools": tools, "tool_choice": "none"}
    assert client.post("/v1/chat/completions", none).json["choices"][0]["message"]["content"] == SENTENCE


def test_each_of_several_choices_is_held(client: Client) -> None:
    tools = [{"type": "function", "function": function(schema("Rome"))}]
    body = {"model": "tool", "messages": HI, "tools": tools, "n": 3}
    for choice in client.post("/v1/chat/completions", body).json["choices"]:
        (call,) = choice["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"])["city"] == "Rome"


CUTS: list[dict[str, Any]] = [{"stop": ["ris"]}, {"max_tokens": 12}, {"max_tokens": 5}]


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_half_a_call_is_none(client: Client, cut: dict[str, Any], choice: str) -> None:
    """Its required argument is missing, or a text of it ends in the middle: no client should run that."""
    tools = [{"type": "function", "function": function(schema("Paris"))}]
    body = {"model": "tool", "messages": HI, "tools": tools, "tool_choice": choice, **cut}
    (answer,) = client.post("/v1/chat/completions", body).json["choices"]
    assert answer["finish_reason"] == ("stop" if "stop" in cut else "length")
    assert "tool_calls" not in answer["message"]
    assert "<tool" not in answer["message"]["content"]


@pytest.mark.parametrize("cut", [{"stop": ["ris"]}, {"num_predict": 12}], ids=str)
def test_half_a_call_is_none_for_ollama(client: Client, cut: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": function(schema("Paris"))}]
    body = {"model": "tool", "messages": HI, "tools": tools, "stream": False, "options": cut}
    answer = client.post("/api/chat", body).json
    assert answer["done_reason"] == ("stop" if "stop" in cut else "length")
    assert "tool_calls" not in answer["message"]


def made(client: Client, **more: Any) -> list[dict[str, Any]]:
    tools = [{"type": "function", "function": function(schema("Paris", "Oslo"))}]
    body = {"model": "tool-twice", "messages": HI, "tools": tools, "max_tokens": 300, **more}
    (choice,) = client.post("/v1/chat/completions", body).json["choices"]
    return [json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_model_may_call_twice_where_the_client_takes_several(client: Client, choice: str) -> None:
    first, second = {"city": "Paris", "days": 3}, {"city": "Oslo", "days": 4}
    assert made(client, tool_choice=choice) == [first, second]
    assert made(client, tool_choice=choice, parallel_tool_calls=False) == [first]


def test_a_call_to_a_named_tool_is_one(client: Client) -> None:
    named = {"type": "function", "function": {"name": NAME}}
    assert made(client, tool_choice=named) == [{"city": "Paris", "days": 3}]

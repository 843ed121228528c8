"""/v1/responses: items in, items out, and events in the order that OpenAI's client checks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard

from tests.support.engine import EngineServer
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, SENTENCE

PATH = "/v1/responses"
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def test_text(client: Client) -> None:
    answer = client.post(PATH, {"model": "chat", "input": "hi", "instructions": "Be brief."}).json
    (item,) = answer["output"]
    assert item["content"][0]["text"] == SENTENCE and answer["status"] == "completed"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_cut_answer_is_incomplete(client: Client) -> None:
    answer = client.post(PATH, {"model": "chat", "input": "hi", "max_output_tokens": 2}).json
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": []}])
def test_no_input_only_loads_the_model(client: Client, nothing: dict[str, Any]) -> None:
    client.post("/api/generate", {"model": "chat-alias", "keep_alive": 0})
    answer = client.post(PATH, {"model": "chat-alias", **nothing}).json
    assert (answer["status"], answer["output"], answer["usage"]["total_tokens"]) == ("completed", [], 0)
    assert any(one["name"].startswith("chat") for one in client.get("/api/ps").json["models"])
    streamed = client.post(PATH, {"model": "chat-alias", "stream": True, **nothing})
    assert streamed.headers["content-type"] == "text/event-stream"
    names = [name for name, _ in streamed.events]
    assert names == ["response.created", "response.in_progress", "response.completed"]
    missing = client.post(PATH, {"model": "nope", "stream": True, **nothing})
    assert missing.status == 404 and missing.json["error"]["code"] == "model_not_found"


def test_a_reference_to_what_was_not_kept_is_refused(client: Client) -> None:
    items = [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": "msg_1"}]
    answer = client.post(PATH, {"model": "chat", "input": items})
    assert answer.status == 400 and answer.json["error"]["param"] == "input[1]"
    assert "item_reference is not supported" in answer.json["error"]["message"]


def test_events_are_in_order(client: Client) -> None:
    events = client.post(PATH, {"model": "think", "input": "hi", "stream": True}).events
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events]
    deduplicated = [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
    assert deduplicated == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    final = events[-1][1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message"]
    text = "".join(data["delta"] for name, data in events if name == "response.output_text.delta")
    assert text == "The answer is 42." == final["output"][1]["content"][0]["text"]


def test_tools_and_their_results(client: Client) -> None:
    body: dict[str, Any] = {"model": "tool", "tools": [TOOL]}
    (call,) = client.post(PATH, {**body, "input": "hi"}).json["output"]
    assert call["type"] == "function_call" and json.loads(call["arguments"]) == {"city": "Paris", "days": 3}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, call, output]
    answer = client.post(PATH, {**body, "input": items}).json
    assert answer["output"][0]["content"][0]["text"] == AFTER_TOOL
    names = [name for name, _ in client.post(PATH, {**body, "input": "hi", "stream": True}).events]
    assert names[2:6] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]


def test_tools_of_a_namespace_have_it_in_their_names(client: Client) -> None:
    member = {"name": "get_weather", "parameters": {"type": "object"}}
    tools = [{"type": "namespace", "name": "mcp", "tools": [member, {**member, "name": "other"}]}]
    for name in ("mcp.get_weather", "mcp.other"):
        choice = {"type": "function", "name": name}
        body = {"model": "tool", "input": "hi", "tools": tools, "tool_choice": choice}
        (call,) = client.post(PATH, body).json["output"]
        assert (call["type"], call["name"]) == ("function_call", name)
    nameless = [{"type": "namespace", "name": "mcp", "tools": [{"name": "a", "parameters": 5}]}]
    refused = client.post(PATH, {"model": "tool", "input": "hi", "tools": nameless})
    assert refused.status == 400 and "parameters must be" in refused.json["error"]["message"]


def test_zstd_bodies(client: Client) -> None:
    raw = json.dumps({"model": "chat", "input": "hi"}).encode()
    headers = {"Content-Encoding": "zstd"}
    packed = zstandard.ZstdCompressor().compress(raw)
    assert client.request("POST", PATH, packed, headers).json["status"] == "completed"
    broken = client.request("POST", PATH, raw, headers)
    assert (broken.status, broken.json["error"]["message"]) == (400, "failed to decompress zstd body")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": "hi"}, "model is required"),
    ({"model": "chat", "input": 5}, "input must be a string or a list of items"),
    ({"model": "chat", "input": [{"type": "x"}]}, 'input[0]: unknown input item type: "x"'),
    ({"model": "chat", "input": [{}]}, "input item missing required 'type' field"),
    ({"model": "chat", "input": "x", "previous_response_id": "r"}, "previous_response_id is not supported"),
    (
        {"model": "chat", "input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        "file inputs are not currently supported",
    ),
    (
        {"model": "tool", "input": "x", "tools": [{"type": "web_search"}]},
        "tools[0]: web search is not available",
    ),
]


@pytest.mark.parametrize(("body", "text"), REFUSED)
def test_refusals(client: Client, body: dict[str, Any], text: str) -> None:
    answer = client.post(PATH, body)
    assert answer.status == 400 and answer.json["error"]["message"].startswith(text)


def test_a_long_prompt_is_refused_unless_truncation_is_asked_for(client: Client) -> None:
    items = [{"role": "user", "content": "word " * 2000}, {"role": "user", "content": "hi"}]
    refused = client.post(PATH, {"model": "chat", "input": items})
    assert refused.status == 400 and refused.json["error"]["code"] == "context_length_exceeded"
    cut = client.post(PATH, {"model": "chat", "input": items, "truncation": "auto"})
    assert cut.status == 200 and cut.headers["x-context-truncated"] == "true"


def test_thinking_and_then_a_call_are_two_items(client: Client) -> None:
    closed = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = [{**TOOL, "parameters": closed}]
    body = {"model": "think-tool", "input": "hi", "tools": tools, "tool_choice": "required", "stream": True}
    events = client.post(PATH, {**body, "max_output_tokens": 300}).events
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    done = [data for name, data in events if name == "response.output_item.done"]
    assert [(data["output_index"], data["item"]["type"]) for data in done] == [
        (0, "reasoning"),
        (1, "function_call"),
    ]
    names = [name for name, _ in events]
    assert names.index("response.reasoning_summary_text.done") < names.index(
        "response.function_call_arguments.delta"
    )
    final = events[-1][1]["response"]
    assert final["output"] == [data["item"] for data in done]
    assert json.loads(final["output"][1]["arguments"]) == {"city": "Rome"}
    assert final["usage"]["output_tokens_details"]["reasoning_tokens"] > 0

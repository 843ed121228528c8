"""Anthropic's routes, with the event sequence that its clients insist on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llm_engine.api.anthropic_messages import messages as to_messages
from llm_engine.api.anthropic_messages import to_turn
from llm_engine.api.anthropic_types import CountTokensRequest, MessagesRequest

from tests.engine.api.test_ollama_routes import HI
from tests.support.engine import EngineServer
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, SENTENCE

PATH = "/v1/messages"
TOOL = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def test_message(client: Client) -> None:
    answer = client.post(PATH, {"model": "chat", "max_tokens": 50, "messages": HI}).json
    assert answer["content"] == [{"type": "text", "text": SENTENCE}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["id"].startswith("msg_") and answer["role"] == "assistant"
    usage = answer["usage"]
    counted = client.post(f"{PATH}/count_tokens", {"model": "chat", "messages": HI}).json["input_tokens"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted


def test_stop_reasons(client: Client) -> None:
    cut = client.post(PATH, {"model": "chat", "max_tokens": 2, "messages": HI}).json
    assert cut["stop_reason"] == "max_tokens"
    body = {"model": "chat", "max_tokens": 50, "messages": HI, "stop_sequences": [" fox"]}
    stopped = client.post(PATH, body).json
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " fox")


def test_the_models_own_stop_texts_are_no_stop_sequence(client: Client) -> None:
    """A client is told of the sequences it gave, not of marks it has never heard of."""
    body = {"model": "chat-params", "max_tokens": 50, "messages": HI}
    answer = client.post("/v1/messages", body).json
    assert answer["content"][0]["text"].endswith("over the ")
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    answer = client.post("/v1/messages", {**body, "stop_sequences": ["fox"]}).json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "fox")


def test_event_sequence(client: Client) -> None:
    body = {
        "model": "think",
        "max_tokens": 50,
        "messages": HI,
        "stream": True,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    events = client.post(PATH, body).events
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events]
    assert names[:2] == ["message_start", "ping"] and names[-2:] == ["message_delta", "message_stop"]
    assert events[0][1]["message"]["usage"]["input_tokens"] > 0
    thinking = "".join(
        d["delta"]["thinking"] for _, d in events if d.get("delta", {}).get("type") == "thinking_delta"
    )
    text = "".join(d["delta"]["text"] for _, d in events if d.get("delta", {}).get("type") == "text_delta")
    assert (thinking, text) == ("Let me consider it.", "The answer is 42.")
    starts = [d["index"] for n, d in events if n == "content_block_start"]
    stops = [d["index"] for n, d in events if n == "content_block_stop"]
    assert starts == stops == [0, 1]
    kinds = [d["delta"]["type"] for n, d in events if n == "content_block_delta"]
    assert "signature_delta" in kinds


def test_thinking_is_off_unless_asked_for(client: Client) -> None:
    answer = client.post(PATH, {"model": "think", "max_tokens": 50, "messages": HI}).json
    assert [block["type"] for block in answer["content"]] == ["text"]


def test_tools(client: Client) -> None:
    body: dict[str, Any] = {"model": "tool", "max_tokens": 50, "messages": HI, "tools": [TOOL]}
    answer = client.post(PATH, body).json
    (call,) = answer["content"]
    assert call["type"] == "tool_use" and call["input"] == {"city": "Paris", "days": 3}
    assert answer["stop_reason"] == "tool_use"
    events = client.post(PATH, {**body, "stream": True}).events
    (piece,) = [d["delta"]["partial_json"] for n, d in events if n == "content_block_delta"]
    assert piece == '{"city":"Paris","days":3}'
    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{"type": "text", "text": "sunny"}],
    }
    after = [*HI, {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [result]}]
    assert client.post(PATH, {**body, "messages": after}).json["content"] == [
        {"type": "text", "text": AFTER_TOOL}
    ]
    schema = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "additionalProperties": False}
    forced = client.post(
        PATH,
        {
            **body,
            "max_tokens": 200,
            "tools": [{**TOOL, "input_schema": schema}],
            "tool_choice": {"type": "tool", "name": "get_weather"},
        },
    ).json
    assert forced["content"][0]["name"] == "get_weather"
    quiet = client.post(PATH, {**body, "tool_choice": {"type": "none"}}).json
    assert quiet["content"] == [{"type": "text", "text": SENTENCE}]


def test_system_and_blocks(client: Client) -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": blocks}],
        "system": [{"type": "text", "text": "s"}],
    }
    with_system = client.post(f"{PATH}/count_tokens", body).json["input_tokens"]
    without = client.post(f"{PATH}/count_tokens", {**body, "system": None}).json["input_tokens"]
    assert with_system > without


TEXT = {"type": "text", "media_type": "text/plain", "data": "It rains in Oslo."}
PARTS = [{"type": "text", "text": "It rains"}, {"type": "text", "text": "in Oslo."}]
SHOWN: list[tuple[dict[str, Any], str]] = [
    ({"type": "document", "source": TEXT}, "It rains in Oslo."),
    ({"type": "document", "title": "T", "context": "C", "source": TEXT}, "T\n\nC\n\nIt rains in Oslo."),
    ({"type": "document", "source": {"type": "content", "content": PARTS}}, "It rains\n\nin Oslo."),
    ({"type": "document", "source": {"type": "content", "content": "all"}}, "all"),
    (
        {"type": "search_result", "source": "http://x", "title": "T", "content": PARTS},
        "T\n\nhttp://x\n\nIt rains\n\nin Oslo.",
    ),
    ({"type": "redacted_thinking", "data": "x"}, ""),
]


@pytest.mark.parametrize(("block", "text"), SHOWN)
def test_documents_are_read(block: dict[str, Any], text: str) -> None:
    said = {"type": "text", "text": "hi"}
    (message,) = to_messages([{"role": "user", "content": [block, said]}], None)
    assert message.content == "\n\n".join(part for part in (text, "hi") if part)
    if text:
        result = {"type": "tool_result", "tool_use_id": "t", "content": [said, block]}
        (message,) = to_messages([{"role": "user", "content": [result]}], None)
        assert (message.role, message.content) == ("tool", f"hi\n\n{text}")


UNSEEN: list[tuple[Any, str]] = [
    ({"type": "unknown"}, ': content block type "unknown" is not supported'),
    ({"text": "x"}, ': content block type "None" is not supported'),
    ({"type": "thinking"}, ': content block type "thinking" is not supported'),
    ({"type": "text"}, ": a text block needs a text"),
    ({"type": "document"}, ': only documents of source type "text" or "content" are read, not "None"'),
    (
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}},
        ': only documents of source type "text" or "content" are read, not "base64"',
    ),
    ({"type": "document", "source": {"type": "text", "data": 7}}, ": a document block needs a text"),
    ({"type": "document", "title": 7, "source": TEXT}, ": a document block needs a text"),
    ({"type": "search_result", "content": [{"type": "image"}]}, ": a search_result block needs a text"),
    ({"type": "search_result"}, ": content must be a string or a list of text blocks"),
]


@pytest.mark.parametrize(("block", "text"), UNSEEN)
def test_what_the_model_would_not_see_is_refused(client: Client, block: Any, text: str) -> None:
    def refusal(content: list[Any]) -> str:
        body = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
        answer = client.post(PATH, body)
        assert answer.status == 400
        return str(answer.json["error"]["message"])

    said = {"type": "text", "text": "hi"}
    assert refusal([said, block]) == f"messages.0.content.1{text}"
    result = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
    assert refusal([said, result]) == f"messages.0.content.1.content.0{text}"
    system = {"model": "chat", "max_tokens": 5, "messages": HI, "system": [block, {"type": "image"}]}
    assert client.post(PATH, system).status == 400


def test_tokens_are_counted_as_they_are_used(client: Client) -> None:
    """Whatever changes the prompt is counted with it: an effort, a form of the answer, tools."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    more: list[dict[str, Any]] = [
        {"model": "think", "output_config": {"effort": "high"}},
        {"model": "think", "output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}},
        {"model": "chat", "output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"model": "tool", "tools": [TOOL], "tool_choice": {"type": "any"}},
    ]
    for given in more:
        body = {"messages": HI, **given}
        counted = client.post(f"{PATH}/count_tokens", body).json["input_tokens"]
        usage = client.post(PATH, {**body, "max_tokens": 5}).json["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted, given


FORM = {
    "type": "json_schema",
    "schema": {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]},
}


@pytest.mark.parametrize("given", [{"output_format": FORM}, {"output_config": {"format": FORM}}])
def test_an_answer_keeps_to_its_form(client: Client, given: dict[str, Any]) -> None:
    body = {"model": "chat", "max_tokens": 100, "messages": HI, **given}
    (block,) = client.post(PATH, body).json["content"]
    assert json.loads(block["text"])["a"] == "x"
    wrong = client.post(PATH, {**body, "output_config": None, "output_format": {"type": "json_schema"}})
    assert wrong.status == 400 and "json_schema" in wrong.json["error"]["message"]


def test_one_call_at_a_time(client: Client) -> None:
    body = {"model": "tool-twice", "max_tokens": 300, "messages": HI, "tools": [TOOL]}

    def calls(**choice: Any) -> list[str]:
        answer = client.post(PATH, {**body, "tool_choice": {"type": "auto", **choice}}).json
        return [block["input"]["city"] for block in answer["content"] if block["type"] == "tool_use"]

    assert calls() == ["Paris", "Oslo"]
    assert calls(disable_parallel_tool_use=True) == ["Paris"]


def test_how_hard_to_think() -> None:
    def think(**given: Any) -> bool | str | None:
        counted = to_turn(CountTokensRequest(model="m", messages=[*HI], **given)).think
        used = to_turn(MessagesRequest(model="m", max_tokens=1, messages=[*HI], **given)).think
        assert counted == used, "the prompt that is counted is the one that is used"
        return used

    low = {"effort": "low"}
    assert think() is False and think(thinking={"type": "adaptive"}) is True
    assert think(output_config=low) == "low" == think(output_config=low, thinking={"type": "adaptive"})
    assert think(output_config=low, thinking={"type": "disabled"}) is False


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"max_tokens": 5, "messages": HI}, 400, "invalid_request_error", "model is required"),
    (
        {"model": "chat", "messages": HI},
        400,
        "invalid_request_error",
        "max_tokens is required and must be positive",
    ),
    ({"model": "chat", "max_tokens": 5}, 400, "invalid_request_error", "messages is required"),
    ({"model": "nope", "max_tokens": 5, "messages": HI}, 404, "not_found_error", "model 'nope' not found"),
    (
        {
            "model": "chat",
            "max_tokens": 5,
            "messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}],
        },
        400,
        "invalid_request_error",
        "tool_use block missing required 'id' field",
    ),
    (
        {
            "model": "chat",
            "max_tokens": 5,
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}
            ],
        },
        400,
        "invalid_request_error",
        "invalid image source type: url. Only base64 images are supported.",
    ),
    (
        {
            "model": "tool",
            "max_tokens": 5,
            "messages": HI,
            "tools": [TOOL],
            "tool_choice": {"type": "tool", "name": "x"},
        },
        400,
        "invalid_request_error",
        'tool_choice: there is no tool named "x"',
    ),
]


@pytest.mark.parametrize(("body", "status", "kind", "text"), REFUSED)
def test_refusals(client: Client, body: dict[str, Any], status: int, kind: str, text: str) -> None:
    answer = client.post(PATH, body)
    assert answer.status == status
    assert answer.json["type"] == "error" and answer.json["error"] == {"type": kind, "message": text}
    assert answer.json["request_id"].startswith("req_")

"""Ollama's own routes, as its clients use them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.engine import EngineServer
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, SENTENCE

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def test_root_says_that_it_runs(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    head = client.request("HEAD", "/")
    assert (head.status, head.body) == (200, b"")
    assert client.request("HEAD", "/api/version").status == 200


def test_generate_streams_ndjson(client: Client) -> None:
    answer = client.post("/api/generate", {"model": "chat", "prompt": "hi"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = answer.lines
    assert "".join(piece["response"] for piece in pieces) == SENTENCE
    assert all(not piece["done"] for piece in pieces)
    assert last["done"] and last["done_reason"] == "stop" and last["response"] == ""
    assert last["prompt_eval_count"] > 0 and last["eval_count"] > 0 and last["total_duration"] > 0
    assert last["context"]


def test_generate_whole(client: Client) -> None:
    answer = client.post("/api/generate", {"model": "chat", "prompt": "hi", "stream": False})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json["response"] == SENTENCE
    assert answer.json["model"] == "chat"


def test_context_continues_the_conversation(client: Client) -> None:
    first = client.post("/api/generate", {"model": "chat", "prompt": "hi", "stream": False}).json
    second = client.post(
        "/api/generate", {"model": "chat", "prompt": "on", "context": first["context"], "stream": False}
    ).json
    assert second["prompt_eval_count"] > len(first["context"])
    assert second["context"][: len(first["context"])] == first["context"]


def test_raw_has_no_template_and_no_context(client: Client) -> None:
    answer = client.post(
        "/api/generate", {"model": "chat", "prompt": "hi", "raw": True, "stream": False}
    ).json
    assert "context" not in answer
    assert answer["prompt_eval_count"] < 6


def test_num_predict_and_stop(client: Client) -> None:
    options: dict[str, Any] = {"num_predict": 3}
    answer = client.post(
        "/api/generate", {"model": "chat", "prompt": "hi", "stream": False, "options": options}
    ).json
    assert (answer["response"], answer["done_reason"], answer["eval_count"]) == (
        "The quick brown",
        "length",
        3,
    )
    options = {"stop": [" fox"]}
    answer = client.post(
        "/api/generate", {"model": "chat", "prompt": "hi", "stream": False, "options": options}
    ).json
    assert (answer["response"], answer["done_reason"]) == ("The quick brown", "stop")


def test_num_predict_zero_is_no_token(client: Client) -> None:
    answer = client.post(
        "/api/generate", {"model": "endless", "prompt": "hi", "stream": False, "options": {"num_predict": 0}}
    ).json
    assert answer["response"] == "" and answer["done_reason"] == "length" and "eval_count" not in answer
    assert answer["prompt_eval_count"] > 0


def test_the_models_own_parameters_and_system_apply(client: Client) -> None:
    body = {"model": "chat-params", "prompt": "hi", "stream": False}
    assert client.post("/api/generate", body).json["response"] == "The quick"
    rendered = client.post("/api/generate", {**body, "_debug_render_only": True}).json
    assert "Be brief." in rendered["_debug_info"]["rendered_template"]
    rendered = client.post("/api/generate", {**body, "system": "Other.", "_debug_render_only": True}).json
    assert "Be brief." not in rendered["_debug_info"]["rendered_template"]
    assert "Other." in rendered["_debug_info"]["rendered_template"]


def test_fill_in_the_middle(client: Client) -> None:
    body = {"model": "fim", "prompt": "a", "suffix": "b", "stream": False}
    assert client.post("/api/generate", body).json["response"] == "filled in"
    shown = client.post("/api/generate", {**body, "_debug_render_only": True}).json
    assert shown["_debug_info"]["rendered_template"] == "<PRE>a<SUF>b"
    refused = client.post("/api/generate", {"model": "chat", "prompt": "a", "suffix": "b"})
    assert refused.status == 400
    assert refused.json == {"error": "registry.ollama.ai/library/chat:latest does not support insert"}


def test_request_template(client: Client) -> None:
    body = {"model": "chat", "prompt": "p", "template": "<<{{ .Prompt }}>>", "_debug_render_only": True}
    assert client.post("/api/generate", body).json["_debug_info"]["rendered_template"] == "<<p>>"
    broken = client.post("/api/generate", {**body, "template": "{{ .Prompt"})
    assert broken.status == 400 and "unclosed action" in broken.json["error"]


def test_chat_with_a_tool_and_its_result(client: Client) -> None:
    first = client.post(
        "/api/chat", {"model": "tool", "messages": HI, "tools": [WEATHER], "stream": False}
    ).json["message"]
    (call,) = first["tool_calls"]
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris", "days": 3}}
    assert list(call["function"]["arguments"]) == ["city", "days"]
    assert call["id"].startswith("call_") and first["content"] == ""
    after = [*HI, first, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    second = client.post(
        "/api/chat", {"model": "tool", "messages": after, "tools": [WEATHER], "stream": False}
    )
    assert second.json["message"]["content"] == AFTER_TOOL
    assert second.json["done_reason"] == "stop"


def test_tool_calls_are_streamed_whole(client: Client) -> None:
    *pieces, last = client.post("/api/chat", {"model": "tool", "messages": HI, "tools": [WEATHER]}).lines
    calls = [piece["message"]["tool_calls"] for piece in pieces if "tool_calls" in piece["message"]]
    assert len(calls) == 1 and calls[0][0]["function"]["name"] == "get_weather"
    assert all("<tool_call>" not in piece["message"]["content"] for piece in pieces)
    assert last["done"]


def test_thinking(client: Client) -> None:
    message = client.post("/api/chat", {"model": "think", "messages": HI, "stream": False}).json["message"]
    assert message["thinking"] == "Let me consider it." and message["content"] == "The answer is 42."
    quiet = client.post(
        "/api/chat", {"model": "think", "messages": HI, "stream": False, "think": False}
    ).json["message"]
    assert "thinking" not in quiet
    refused = client.post("/api/chat", {"model": "chat", "messages": HI, "think": True})
    assert (refused.status, refused.json) == (400, {"error": '"chat" does not support thinking'})


def test_formats(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    body = {"model": "chat", "prompt": "hi", "stream": False, "format": schema}
    assert (
        client.post("/api/generate", body)
        .json["response"]
        .replace(" ", "")
        .replace("\n", "")
        .replace("\t", "")
        == '{"a":1}'
    )
    wrong = client.post("/api/generate", {**body, "format": "yaml"})
    assert wrong.status == 400
    assert wrong.json["error"] == 'invalid format: "yaml"; expected "json" or a valid JSON Schema object'


def test_a_grammar_of_ones_own(client: Client) -> None:
    body = {"model": "chat", "prompt": "hi", "stream": False, "options": {"grammar": 'root ::= "yes"'}}
    assert client.post("/api/generate", body).json["response"] == "yes"
    broken = client.post("/api/generate", {**body, "options": {"grammar": "root ::= ("}})
    assert broken.status == 400


def test_logprobs(client: Client) -> None:
    body = {
        "model": "chat",
        "prompt": "hi",
        "stream": False,
        "logprobs": True,
        "top_logprobs": 2,
        "options": {"num_predict": 2},
    }
    entries = client.post("/api/generate", body).json["logprobs"]
    assert [entry["token"] for entry in entries] == ["The", " quick"]
    assert len(entries[0]["top_logprobs"]) == 2
    assert bytes(entries[1]["bytes"]).decode() == " quick"


def test_load_and_unload(client: Client) -> None:
    loaded = client.post("/api/generate", {"model": "fim"}).json
    assert loaded["done"] and loaded["done_reason"] == "load" and loaded["response"] == ""
    assert any(model["name"] == "fim:latest" for model in client.get("/api/ps").json["models"])
    gone = client.post("/api/generate", {"model": "fim", "keep_alive": 0}).json
    assert gone["done_reason"] == "unload"
    assert all(model["name"] != "fim:latest" for model in client.get("/api/ps").json["models"])
    empty = client.post("/api/chat", {"model": "fim", "messages": [], "keep_alive": 0}).json
    assert empty["message"] == {"role": "assistant", "content": ""} and empty["done_reason"] == "unload"


def test_embeddings(client: Client) -> None:
    answer = client.post("/api/embed", {"model": "embed", "input": ["a", "b", ""]}).json
    assert [len(vector) for vector in answer["embeddings"]] == [384] * 3
    for vector in answer["embeddings"][:2]:
        assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-3)
    assert answer["prompt_eval_count"] > 0
    short = client.post("/api/embed", {"model": "embed", "input": "a", "dimensions": 8}).json["embeddings"][0]
    assert len(short) == 8 and sum(value * value for value in short) == pytest.approx(1, abs=1e-3)
    for ignored in (-1, 0, 9999):
        body = {"model": "embed", "input": "a", "dimensions": ignored}
        assert len(client.post("/api/embed", body).json["embeddings"][0]) == 384
    old = client.post("/api/embeddings", {"model": "embed", "prompt": "a"}).json["embedding"]
    assert len(old) == 384
    for nothing in (None, "", []):
        assert client.post("/api/embed", {"model": "embed", "input": nothing}).json == {
            "model": "embed",
            "embeddings": [],
        }


def test_embedding_refusals(client: Client) -> None:
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        ("/api/embed", {"input": "a"}, 404, "model '' not found"),
        ("/api/embed", {"model": "nope", "input": "a"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/embed", {"model": "embed", "input": 1}, 400, "invalid input type"),
        ("/api/embed", {"model": "embed", "input": [1]}, 400, "invalid input type"),
        ("/api/embeddings", {"prompt": "a"}, 400, "model is required"),
    ]
    for path, body, status, text in cases:
        answer = client.post(path, body)
        assert (answer.status, answer.json) == (status, {"error": text})
    long = {"model": "embed", "input": "word " * 3000, "truncate": False}
    assert client.post("/api/embed", long).status == 400
    assert client.post("/api/embed", {**long, "truncate": True}).status == 200
    assert client.post("/api/generate", {"model": "embed", "prompt": "a"}).json == {
        "error": '"embed" does not support generate'
    }
    assert client.post("/api/chat", {"model": "embed", "messages": HI}).json == {
        "error": '"embed" does not support chat'
    }


REFUSED: list[tuple[str, bytes, int, str]] = [
    ("/api/generate", b"", 400, "missing request body"),
    ("/api/generate", b"{", 400, "unexpected EOF"),
    ("/api/generate", b"{}", 404, "model '' not found"),
    ("/api/generate", b'{"model":"nope","prompt":"a"}', 404, "model 'nope' not found"),
    (
        "/api/generate",
        b'{"model":"chat","prompt":"a","top_logprobs":21}',
        400,
        "top_logprobs must be between 0 and 20",
    ),
    (
        "/api/generate",
        b'{"model":"chat","prompt":"a","raw":true,"system":"s"}',
        400,
        "raw mode does not support template, system, or context",
    ),
    (
        "/api/generate",
        b'{"model":"chat","prompt":"a","options":{"temperature":"hot"}}',
        400,
        'option "temperature" must be of type float32',
    ),
    (
        "/api/generate",
        b'{"model":"chat","prompt":"a","options":{"stop":[1]}}',
        400,
        'option "stop" must be of an array of strings',
    ),
    ("/api/chat", b"{}", 400, "model is required"),
    ("/api/chat", b'{"model":"nope","messages":[]}', 404, "model 'nope' not found"),
    (
        "/api/chat",
        b'{"model":"a b","messages":[{"role":"user","content":"x"}]}',
        404,
        "model 'a b' not found",
    ),
    ("/api/me", b"", 503, "account unavailable"),
    ("/api/tokenize", b'{"model":"nope"}', 404, "model 'nope' not found"),
    ("/api/detokenize", b'{"model":"chat","tokens":[-1]}', 400, "token -1 is not in the vocabulary of"),
]


@pytest.mark.parametrize(("path", "body", "status", "text"), REFUSED)
def test_refusals(client: Client, path: str, body: bytes, status: int, text: str) -> None:
    answer = client.post(path, body)
    assert answer.status == status
    assert answer.json["error"].startswith(text)


def test_unknown_paths_and_methods(client: Client) -> None:
    missing = client.get("/api/nope")
    assert (missing.status, missing.body) == (404, b"404 page not found")
    wrong = client.get("/api/chat")
    assert (wrong.status, wrong.body, wrong.headers["allow"]) == (405, b"405 method not allowed", "POST")
    slash = client.get("/api/ps/")
    assert (slash.status, slash.headers["location"]) == (301, "/api/ps")
    assert client.get("/api/tags/?x=1&y=a%2Fb").headers["location"] == "/api/tags?x=1&y=a%2Fb"


def test_tokenizer_round_trip(client: Client) -> None:
    tokens = client.post("/api/tokenize", {"model": "chat", "content": "hiä"}).json["tokens"]
    assert client.post("/api/detokenize", {"model": "chat", "tokens": tokens}).json["content"] == "hiä"


def test_ps_is_measured(engine: EngineServer, client: Client) -> None:
    client.post("/api/generate", {"model": "chat", "keep_alive": "90s", "options": {"num_ctx": 64}})
    row = next(row for row in client.get("/api/ps").json["models"] if row["name"] == "chat:latest")
    assert row["size"] >= 100_000 and row["size_vram"] == 0, "no GPU here, so all of it is in main memory"
    assert row["context_length"] >= 64 and row["details"]["family"] == "llama"
    expires = datetime.fromisoformat(row["expires_at"])
    assert 60 < (expires - datetime.now(UTC)).total_seconds() <= 90
    tags = {model["name"]: model["digest"] for model in client.get("/api/tags").json["models"]}
    assert row["digest"] == tags["chat:latest"]


def test_names_on_one_blob_are_both_listed(client: Client) -> None:
    for name in ("chat", "chat-alias"):
        assert client.post("/api/generate", {"model": name, "prompt": "x", "stream": False}).status == 200
    rows = {row["name"]: row for row in client.get("/api/ps").json["models"]}
    assert {"chat:latest", "chat-alias:latest"} <= rows.keys()
    assert rows["chat:latest"]["size"] == rows["chat-alias:latest"]["size"] > 0
    assert rows["chat:latest"]["context_length"] == 4096


@pytest.mark.parametrize("context", [48, 64, 80])
def test_a_form_after_thinking_that_the_context_does_not_hold(client: Client, context: int) -> None:
    """The context shifts while the model thinks; what comes then must fit as well."""
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    options = {"num_ctx": context, "num_predict": 120}
    body = {"model": "think", "messages": HI, "stream": False, "format": schema, "options": options}
    answer = client.post("/api/chat", body)
    assert answer.status == 200, answer.json
    assert json.loads(answer.json["message"]["content"]) == {"a": 1}
    assert answer.json["message"]["thinking"].startswith("Let me consider")

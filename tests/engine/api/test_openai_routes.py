"""OpenAI's routes: what its clients send, and what Ollama drops of it."""

from __future__ import annotations

import base64
import json
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.api.test_ollama_routes import HI, WEATHER
from tests.support.engine import EngineServer
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, SENTENCE
from tests.support.rank_gguf import CrossEncoder

CHAT = "/v1/chat/completions"


@pytest.fixture
def client(engine: EngineServer) -> Client:
    return engine.client


def chunks(client: Client, body: dict[str, Any], path: str = CHAT) -> list[Any]:
    answer = client.post(path, {**body, "stream": True})
    assert answer.status == 200 and answer.headers["content-type"] == "text/event-stream"
    events = [data for _, data in answer.events]
    assert events[-1] == "[DONE]"
    return events[:-1]


def test_whole_answer(client: Client) -> None:
    answer = client.post(CHAT, {"model": "chat", "messages": HI}).json
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": SENTENCE}
    assert choice["finish_reason"] == "stop" and answer["object"] == "chat.completion"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    again = client.post(CHAT, {"model": "chat", "messages": HI}).json["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] > 0


def test_stream(client: Client) -> None:
    events = chunks(client, {"model": "chat", "messages": HI, "stream_options": {"include_usage": True}})
    *parts, usage = events
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 0
    assert all("usage" not in part for part in parts)
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == SENTENCE
    assert [part["choices"][0]["finish_reason"] for part in parts][-2:] == [None, "stop"]
    assert len({(part["id"], part["created"]) for part in events}) == 1


def test_limits(client: Client) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        choice = client.post(CHAT, {"model": "chat", "messages": HI, field: 2}).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("The quick", "length")
    choice = client.post(CHAT, {"model": "chat", "messages": HI, "stop": [" fox"]}).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The quick brown", "stop")


def test_several_choices(client: Client) -> None:
    answer = client.post(CHAT, {"model": "chat", "messages": HI, "n": 3}).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {SENTENCE}
    events = chunks(client, {"model": "chat", "messages": HI, "n": 2})
    texts = {0: "", 1: ""}
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: SENTENCE, 1: SENTENCE}


def test_logprobs_and_bias(client: Client) -> None:
    body = {"model": "chat", "messages": HI, "logprobs": True, "top_logprobs": 2, "max_tokens": 2}
    (choice,) = client.post(CHAT, body).json["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["The", " quick"]
    assert len(content[0]["top_logprobs"]) == 2
    (token,) = client.post("/api/tokenize", {"model": "chat", "content": "z"}).json["tokens"]
    body = {"model": "chat", "messages": HI, "logit_bias": {str(token): 100}, "max_tokens": 3}
    assert client.post(CHAT, body).json["choices"][0]["message"]["content"] == "zzz"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=["any", "named"]
)
@pytest.mark.parametrize("model", ["tool", "think-tool"])
def test_a_forced_call_is_a_valid_call(client: Client, model: str, choice: Any) -> None:
    """Whatever the model would say: the text of these models is no call."""
    strict = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Paris", "Rome"]},
                    "days": {"type": "integer", "enum": [1, 2]},
                },
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
    after = [*HI, {"role": "assistant", "content": "x"}, {"role": "user", "content": "go"}]
    body = {"model": model, "messages": after, "tools": [strict], "tool_choice": choice, "max_tokens": 200}
    (answer,) = client.post(CHAT, body).json["choices"]
    (call,) = answer["message"]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] == ""
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["city"] in ("Paris", "Rome") and arguments["days"] in (1, 2)


def test_tool_choice_none_and_mistakes(client: Client) -> None:
    body = {"model": "tool", "messages": HI, "tools": [WEATHER], "tool_choice": "none"}
    message = client.post(CHAT, body).json["choices"][0]["message"]
    assert message == {"role": "assistant", "content": SENTENCE}
    for wrong in ("maybe", {"type": "function", "function": {"name": "nope"}}, 3):
        refused = client.post(CHAT, {**body, "tool_choice": wrong})
        assert refused.status == 400 and refused.json["error"]["param"] == "tool_choice"
    refused = client.post(CHAT, {"model": "tool", "messages": HI, "tool_choice": "required"})
    assert refused.status == 400


def test_tools_in_a_stream_and_back(client: Client) -> None:
    events = chunks(client, {"model": "tool", "messages": HI, "tools": [WEATHER]})
    calls = [
        event["choices"][0]["delta"]["tool_calls"]
        for event in events
        if event["choices"][0]["delta"].get("tool_calls")
    ]
    assert len(calls) == 1 and events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    (call,) = calls[0]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Paris","days":3}'}
    after = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]},
    ]
    answer = client.post(CHAT, {"model": "tool", "messages": after, "tools": [WEATHER]}).json
    assert answer["choices"][0]["message"]["content"] == AFTER_TOOL


def test_reasoning_is_apart(client: Client) -> None:
    message = client.post(CHAT, {"model": "think", "messages": HI}).json["choices"][0]["message"]
    assert message["reasoning"] == "Let me consider it." and message["content"] == "The answer is 42."
    off = client.post(CHAT, {"model": "think", "messages": HI, "reasoning_effort": "none"}).json
    assert "reasoning" not in off["choices"][0]["message"]
    events = chunks(client, {"model": "think", "messages": HI})
    deltas = [event["choices"][0]["delta"] for event in events]
    assert all(not (delta.get("reasoning") and delta.get("content")) for delta in deltas)


def test_json_schema(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["x"]}, "age": {"enum": [7]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": schema}}
    for model in ("chat", "think"):
        body = {"model": model, "messages": HI, "response_format": form, "max_tokens": 200}
        message = client.post(CHAT, body).json["choices"][0]["message"]
        assert json.loads(message["content"]) == {"name": "x", "age": 7}


def test_completions(client: Client) -> None:
    body: dict[str, Any] = {"model": "chat", "prompt": ["a", "b"], "max_tokens": 2, "n": 2, "echo": True}
    answer = client.post("/v1/completions", body).json
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == ["aThe quick", "aThe quick", "bThe quick", "bThe quick"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    best = client.post(
        "/v1/completions", {"model": "chat", "prompt": "a", "best_of": 3, "max_tokens": 1}
    ).json
    assert len(best["choices"]) == 1
    tokens = client.post("/api/tokenize", {"model": "chat", "content": "hello"}).json["tokens"]
    for prompt in (tokens, [tokens]):
        body = {"model": "chat", "prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": 1}
        choice = client.post("/v1/completions", body).json["choices"][0]
        assert choice["text"] == "helloThe" and choice["logprobs"]["tokens"][-1] == "The"
        assert "".join(choice["logprobs"]["tokens"]) == "helloThe"
    events = chunks(client, {"model": "chat", "prompt": "a", "max_tokens": 2}, "/v1/completions")
    assert "".join(event["choices"][0]["text"] for event in events) == "The quick"
    for wrong in (
        {"best_of": 2, "n": 3},
        {"best_of": 2, "stream": True},
        {"prompt": [[]]},
        {"prompt": {"a": 1}},
        {"n": 0},
    ):
        assert client.post("/v1/completions", {"model": "chat", "prompt": "a", **wrong}).status == 400


def test_how_likely_a_prompt_is(client: Client) -> None:
    """As evaluations ask it: `echo` with nothing generated. Each value is what the model gives the token
    when it comes to its turn, with the tokens before it as the prompt."""
    text = "Thecatsatonthemat,andmore."
    body: dict[str, Any] = {"model": "random", "echo": True, "logprobs": 3, "max_tokens": 0}
    (choice,) = client.post("/v1/completions", {**body, "prompt": text}).json["choices"]
    told = choice["logprobs"]
    assert choice["text"] == "".join(told["tokens"]) == text and choice["finish_reason"] == "length"
    assert [len(values) for values in told.values()] == [len(told["tokens"])] * 4
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    assert all(value < 0 for value in told["token_logprobs"][1:])
    assert all(len(top) == 3 for top in told["top_logprobs"][1:])
    starts = [len("".join(told["tokens"][:at])) for at in range(len(told["tokens"]))]
    assert told["text_offset"] == starts
    tokens = client.post("/api/tokenize", {"model": "random", "content": text}).json["tokens"]
    (choice,) = client.post("/v1/completions", {**body, "prompt": tokens}).json["choices"]
    ids = choice["logprobs"]
    assert ids["tokens"] == told["tokens"]
    for at in (1, 5, len(tokens) - 1):
        one = {"model": "random", "prompt": tokens[:at], "max_tokens": 1, "logprobs": 20}
        bias = {"options": {"logit_bias": {str(tokens[at]): 1000}}, "temperature": 0}
        (forced,) = client.post("/v1/completions", {**one, **bias}).json["choices"]
        assert forced["logprobs"]["token_logprobs"][0] == pytest.approx(ids["token_logprobs"][at], abs=1e-3)
    # Again, when every prefix of it is in the cache, beside others, in a stream, and for several choices.
    again = client.post("/v1/completions", {**body, "prompt": [tokens, tokens[:9]], "n": 2}).json["choices"]
    for other in again:
        values = other["logprobs"]["token_logprobs"]
        assert values[1:] == pytest.approx(ids["token_logprobs"][1 : len(values)], abs=1e-3)
    streamed = chunks(client, {**body, "prompt": tokens, "max_tokens": 2}, "/v1/completions")
    first = streamed[0]["choices"][0]
    assert first["text"] == text
    assert first["logprobs"]["token_logprobs"][1:] == pytest.approx(ids["token_logprobs"][1:], abs=1e-3)
    written = [
        offset
        for one in streamed[1:]
        for offset in (one["choices"][0]["logprobs"] or {}).get("text_offset", ())
    ]
    assert written[0] == len(text) and len(written) == 2


def test_a_long_prompt_is_told_whole(client: Client) -> None:
    tokens = client.post("/api/tokenize", {"model": "random", "content": "onetwothree" * 14}).json["tokens"]
    body = {"model": "random", "prompt": tokens, "echo": True, "logprobs": 0, "max_tokens": 1}
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/completions", body).json, range(3)))
    for answer in answers:
        values = answer["choices"][0]["logprobs"]["token_logprobs"]
        assert len(values) == len(tokens) + 1 and values.count(None) == 1
        assert answer["usage"]["prompt_tokens"] == len(tokens)
    refused = client.post("/v1/completions", {**body, "prompt": tokens * 40})
    assert refused.status == 400 and refused.json["error"]["code"] == "context_length_exceeded"


def test_what_several_prompts_cost_is_added(client: Client) -> None:
    """Also the part that the cache held: each prompt begins with the one before."""
    prompts = ["one two three four five " * 8 + end for end in ("", "six", "six seven")]
    body = {"model": "chat", "prompt": prompts, "max_tokens": 2}
    for prompt in prompts:
        client.post("/v1/completions", {**body, "prompt": prompt})
    apart = [client.post("/v1/completions", {**body, "prompt": prompt}).json["usage"] for prompt in prompts]
    events = client.post(
        "/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}
    ).events
    for usage in (client.post("/v1/completions", body).json["usage"], events[-2][1]["usage"]):
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert usage[name] == sum(one[name] for one in apart), name
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert apart[0]["prompt_tokens"] < cached < usage["prompt_tokens"]


def test_rerank(client: Client) -> None:
    """In the order of the scores, as many as were asked for, with their texts where they are wanted."""
    query, documents = "which-one?", ["zebra", {"text": "an-owl"}, "eel" * 5, "x"]
    texts = [item["text"] if isinstance(item, dict) else item for item in documents]

    def tokens_read() -> float:
        found = re.search(
            r'prompt_tokens_total\{model="rank:latest"\} (\S+)', client.get("/metrics").body.decode()
        )
        return float(found[1]) if found else 0.0

    before = tokens_read()
    body = {"model": "rank", "query": query, "documents": documents}
    answer = client.post("/v1/rerank", body).json
    assert tokens_read() - before == answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True) and "document" not in answer["results"][0]
    by_hand = CrossEncoder()
    expected = sorted(range(4), key=lambda at: -by_hand.score(query, texts[at]))
    assert [result["index"] for result in answer["results"]] == expected
    best = client.post("/v1/rerank", {**body, "top_n": 2, "return_documents": True}).json["results"]
    assert [result["document"]["text"] for result in best] == [texts[at] for at in expected[:2]]
    assert [result["relevance_score"] for result in best] == pytest.approx(scores[:2], abs=1e-4)


def test_offsets_of_streamed_logprobs_are_each_choices_own(client: Client) -> None:
    body = {"model": "chat", "prompt": ["a", "bc"], "n": 2, "max_tokens": 3, "logprobs": 1, "echo": True}
    texts: dict[int, str] = {}
    for _, event in client.post("/v1/completions", {**body, "stream": True}).events[:-1]:
        (choice,) = event["choices"]
        text = texts.setdefault(choice["index"], "")
        if choice["logprobs"]:
            assert choice["logprobs"]["text_offset"][0] == len(text)
        texts[choice["index"]] += choice["text"]
    assert sorted(texts) == [0, 1, 2, 3] and texts[0].startswith("a") and texts[3].startswith("bc")


def test_the_best_are_those_of_the_highest_probability_per_token(client: Client) -> None:
    """All candidates of a seed are known by asking for them; of them the best come first."""
    body = {"model": "random", "prompt": "abc", "max_tokens": 6, "seed": 5, "temperature": 1.5, "logprobs": 0}

    def asked(**more: Any) -> Any:
        return client.post("/v1/completions", {**body, **more}).json

    def mean(choice: Any) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return float(sum(values) / len(values))

    every = asked(n=6)
    ranked = sorted(every["choices"], key=mean, reverse=True)
    texts = [choice["text"] for choice in ranked]
    assert len(set(texts)) == 6 and texts != [choice["text"] for choice in every["choices"]]
    for n in (1, 2, 6):
        best = asked(n=n, best_of=6)
        wanted = texts[:n] if n < 6 else [choice["text"] for choice in every["choices"]]
        assert [choice["text"] for choice in best["choices"]] == wanted
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert best["usage"][name] == every["usage"][name]
    silent = asked(n=1, best_of=6, logprobs=None)["choices"][0]
    assert (silent["text"], silent["logprobs"]) == (texts[0], None)


def test_embeddings(client: Client) -> None:
    def vector(**body: Any) -> Any:
        return client.post("/v1/embeddings", {"model": "embed", **body}).json["data"][0]["embedding"]

    floats = vector(input="a")
    packed = base64.b64decode(vector(input="a", encoding_format="base64"))
    assert list(struct.unpack("<384f", packed)) == pytest.approx(floats, abs=1e-6)
    tokens = client.post("/api/tokenize", {"model": "embed", "content": "a", "add_special": True}).json[
        "tokens"
    ]
    assert len(vector(input=tokens)) == 384
    many = client.post("/v1/embeddings", {"model": "embed", "input": ["a", "b"], "dimensions": 16}).json
    assert [(row["index"], len(row["embedding"])) for row in many["data"]] == [(0, 16), (1, 16)]
    for wrong in (None, [], [1.5], {"a": 1}):
        answer = client.post("/v1/embeddings", {"model": "embed", "input": wrong})
        assert answer.status == 400 and answer.json["error"]["type"] == "invalid_request_error"
    bad = client.post("/v1/embeddings", {"model": "embed", "input": "a", "encoding_format": "hex"})
    assert "Supported values: ['float', 'base64']" in bad.json["error"]["message"]


def test_models(client: Client) -> None:
    rows = client.get("/v1/models").json["data"]
    assert {"chat:latest", "embed:latest"} <= {row["id"] for row in rows}
    assert client.get("/v1/models/chat").json["owned_by"] == "library"
    missing = client.get("/v1/models/nope")
    assert missing.status == 404 and missing.json["error"]["code"] == "model_not_found"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": HI}, "model is required"),
    ({"model": "chat", "messages": []}, "[] is too short - 'messages'"),
    (
        {"model": "chat", "messages": [{"role": "user", "content": None}]},
        "invalid message content type: <nil>",
    ),
    ({"model": "chat", "messages": [{"role": "user", "content": [{"type": "x"}]}]}, "invalid message format"),
    (
        {
            "model": "chat",
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
            ],
        },
        "image URLs are not currently supported, please use base64 encoded data instead",
    ),
    ({"model": "chat", "messages": HI, "n": 0}, "n must be between 1 and 128, not 0"),
    ({"model": "chat", "messages": HI, "top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
    ({"model": "chat", "messages": HI, "response_format": {"type": "yaml"}}, "response_format.type must be"),
    ({"model": "chat", "messages": HI, "reasoning_effort": "hard"}, 'invalid reasoning value: "hard"'),
    ({"model": "chat", "messages": HI, "stop": 5}, "invalid type for 'stop' field: float64"),
    (
        {
            "model": "tool",
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}],
                }
            ],
        },
        "invalid tool call arguments",
    ),
    ({"model": "chat", "messages": HI, "keep_alive": "soon"}, 'time: invalid duration "soon"'),
]


@pytest.mark.parametrize(("body", "text"), REFUSED)
def test_refusals(client: Client, body: dict[str, Any], text: str) -> None:
    answer = client.post(CHAT, body)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["message"].startswith(text)


def test_empty_body(client: Client) -> None:
    assert client.post(CHAT, b"").json["error"]["message"] == "EOF"


def test_unknown_model(client: Client) -> None:
    answer = client.post(CHAT, {"model": "nope", "messages": HI})
    assert answer.status == 404
    assert answer.json == {
        "error": {
            "message": "model 'nope' not found",
            "type": "not_found_error",
            "param": None,
            "code": "model_not_found",
        }
    }


def test_documents_are_told_to_the_model(engine: EngineServer) -> None:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": "Is it raining?"}],
        "documents": ["It rains in Oslo.", {"title": "Rome", "text": "The sun shines."}],
    }
    shown = engine.client.post("/v1/chat/completions", {**body, "_debug_render_only": True}).json
    text = json.dumps(shown)
    assert "[1] It rains in Oslo." in text and "[2] Rome\\nThe sun shines." in text
    refused = engine.client.post("/v1/chat/completions", {**body, "documents": [3]})
    assert refused.status == 400
    assert refused.json["error"]["message"] == "documents must be texts or objects"

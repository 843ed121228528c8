"""Bodies that no client should send, by the hundred: each gets the right 4xx in the shape of its API, and the
server stays."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.support.engine import EngineServer

PATHS = [
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/tokenize",
    "/api/detokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/messages",
    "/v1/messages/count_tokens",
]
BROKEN = [
    b"",
    b" ",
    b"{",
    b"[",
    b"nul",
    b'"',
    b"{]",
    b'{"model":',
    b'{"model":"chat",}',
    b"\x00",
    b"\xff\xfe{}",
    b"[1]",
    b"7",
    b'"text"',
    b"true",
    b"{" * 2000,
    b"[" * 100_000,
    b'{"a":' * 3000,
    b'{"model":1}',
    b'{"model":[]}',
    b'{"model":{}}',
    b'{"model":true}',
    b'{"model":"nope","messages":"x"}',
    b'{"model":"nope","messages":[[]]}',
    b'{"model":"nope","messages":[null],"tools":[null],"max_tokens":1}',
    b'{"model":"nope","prompt":"x","images":[null]}',
    b'{"model":"nope","messages":[{"role":"user","content":"x","images":[null]}]}',
    b'{"model":"a\\u0000b","input":"x","prompt":"x"}',
    b'{"model":"../../etc/passwd"}',
    b'{"model":"' + b"x" * 5000 + b'"}',
    b'{"model":"nope","unknown":' + b"9" * 5000 + b',"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"nope","options":{"logit_bias":{"5":1e400}},"keep_alive":1e400,"temperature":1e400}',
    b'{"model":"nope","metadata":' + b'{"a":' * 300 + b"1" + b"}" * 301,
]
HUGE = "1" + "0" * 400
ASK = '"model":"chat","max_tokens":2,"messages":[{"role":"user","content":"x"}]'
TOO_MUCH = [
    ("/api/generate", f'{{"model":"chat","prompt":"x","keep_alive":{HUGE}}}'),
    ("/api/generate", '{"model":"chat","prompt":"x","options":{"logit_bias":{"5":1e300}}}'),
    ("/api/generate", f'{{"model":"chat","prompt":"x","options":{{"logit_bias":{{"5":{HUGE}}}}}}}'),
    ("/api/chat", f'{{"model":"chat","messages":[],"keep_alive":-{HUGE}}}'),
    ("/v1/chat/completions", f'{{{ASK},"temperature":{HUGE}}}'),
    ("/v1/chat/completions", f'{{{ASK},"keep_alive":1e400}}'),
    ("/v1/chat/completions", f'{{{ASK},"logit_bias":{{"5":-{HUGE}}}}}'),
    ("/v1/messages", f'{{{ASK},"top_p":{HUGE}}}'),
    ("/v1/responses", '{"model":"chat","input":"x","metadata":' + '{"a":' * 300 + "1" + "}" * 301),
    ("/v1/responses", '{"model":"chat","input":"x","metadata":{"a":1e400}}'),
]
"""Legal JSON, a known model, and a value that nothing can be done with."""


RIGHT = (400, 404, 413)
"""What may be wrong with a body: its form, its model, its size."""


def check(path: str, answer: Any, body: bytes, *right: int) -> None:
    """Refused with the right status, in the shape of the API that was called."""
    assert answer.status in (right or RIGHT), (answer.status, body[:80], answer.body[:200])
    assert answer.headers["content-type"].startswith("application/json")
    document = answer.json
    if path.startswith("/api/"):
        assert list(document) == ["error"] and isinstance(document["error"], str) and document["error"]
    elif path.startswith("/v1/messages"):
        assert document["type"] == "error" and document["request_id"].startswith("req_")
        assert set(document["error"]) == {"type", "message"} and document["error"]["message"]
    else:
        assert set(document["error"]) == {"message", "type", "param", "code"} and document["error"]["message"]
    kind = document["error"]["type"] if path.startswith("/v1/") else ""
    wrong = (
        {404: "not_found_error", 413: "request_too_large"} if "messages" in path else {404: "not_found_error"}
    )
    assert not kind or kind == wrong.get(answer.status, "invalid_request_error")


def malformed(raw: bytes) -> bool:
    """Whether the first value of a body is no JSON, as Go reads it: what follows it does not matter, bytes
    that are no UTF-8 are replaced."""

    def constant(name: str) -> Any:
        raise ValueError(name)

    text = raw.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        json.JSONDecoder(parse_constant=constant, parse_int=float).raw_decode(text)
    except (ValueError, RecursionError):  # what is that deep is no JSON that is taken either
        return True
    return False


@pytest.mark.parametrize("path", PATHS)
def test_table_of_broken_bodies(engine: EngineServer, path: str) -> None:
    for body in BROKEN:
        answer = engine.client.post(path, body)
        check(path, answer, body, *((400,) if malformed(body) else RIGHT))


@pytest.mark.parametrize(("path", "body"), TOO_MUCH)
def test_values_beyond_all_bounds(engine: EngineServer, path: str, body: str) -> None:
    check(path, engine.client.post(path, body.encode()), body.encode(), 400)


def test_half_a_pair_in_the_arguments_of_an_earlier_call(engine: EngineServer) -> None:
    """Clients send back what a model wrote, which may be no Unicode text."""
    arguments = '{"city": "\\ud800", "n": ' + "7" * 5000 + "}"
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages: list[Any] = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [made]}]
    body: dict[str, Any] = {"model": "tool", "max_tokens": 2, "messages": messages}
    check("/v1/", engine.client.post("/v1/chat/completions", body), b"", 400)
    made["function"] = {"name": "f", "arguments": '{"city": "\\ud800"}'}
    assert engine.client.post("/v1/chat/completions", body).status == 200


@pytest.mark.parametrize("path", PATHS)
def test_mutated_bodies(engine: EngineServer, path: str) -> None:
    """A good body with bytes changed, or a value of another type, never ends in a 5xx, and never in an answer
    where the bytes are no JSON any more."""
    good: dict[str, Any] = {
        "model": "embed" if "embed" in path else "chat",
        "prompt": "x",
        "input": "x",
        "query": "x",
        "documents": ["a"],
        "content": "x",
        "tokens": [5],
        "max_tokens": 2,
        "max_output_tokens": 2,
        "stream": False,
        "messages": [{"role": "user", "content": "x"}],
        "options": {"num_predict": 2, "temperature": 0.5, "stop": ["a"]},
    }
    values: list[Any] = [
        None,
        True,
        -1,
        1.5,
        1e300,
        2**70,
        "",
        "x",
        [],
        [None],
        [[]],
        {},
        {"a": {}},
        "\u0000",
    ]
    source = random.Random(7)
    for _ in range(40):
        body = json.loads(json.dumps(good))
        key = source.choice([key for key in body if key not in ("model", "stream")])
        body[key] = source.choice(values)
        answer = engine.client.post(path, body)
        if answer.status != 200:
            check(path, answer, repr(body).encode())
        raw = bytearray(json.dumps(good).encode())
        for _ in range(3):
            raw[source.randrange(len(raw))] = source.randrange(256)
        answer = engine.client.post(path, bytes(raw))
        if malformed(bytes(raw)):
            check(path, answer, bytes(raw), 400)
        elif answer.status != 200:
            check(path, answer, bytes(raw))
    assert engine.client.alive()

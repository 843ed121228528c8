"""Bodies that no client should send, by the hundred: each gets a 4xx in the shape of its API, and the
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
    b'{"model":"a\\u0000b","input":"x","prompt":"x"}',
    b'{"model":"../../etc/passwd"}',
    b'{"model":"' + b"x" * 5000 + b'"}',
]


def check(answer: Any, body: bytes) -> None:
    assert 400 <= answer.status < 500, (answer.status, body[:80], answer.body[:200])
    error = answer.json["error"]
    assert isinstance(error, str) or error["message"], body[:80]


@pytest.mark.parametrize("path", PATHS)
def test_table_of_broken_bodies(engine: EngineServer, path: str) -> None:
    for body in BROKEN:
        check(engine.client.post(path, body), body)


@pytest.mark.parametrize("path", PATHS)
def test_mutated_bodies(engine: EngineServer, path: str) -> None:
    """A good body with bytes changed, or a value of another type, never ends in a 5xx."""
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
        assert answer.status < 500, (body, answer.body)
        raw = bytearray(json.dumps(good).encode())
        for _ in range(3):
            raw[source.randrange(len(raw))] = source.randrange(256)
        answer = engine.client.post(path, bytes(raw))
        assert answer.status < 500, (bytes(raw), answer.body)
    assert engine.client.alive()

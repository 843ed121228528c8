"""What anybody may send before a key was looked at: odd origins, upgrades, heads without an end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from llm_engine.api.connection import MOST_HEAD
from llm_engine.api.gate import Gate
from llm_engine.api.metrics import Metrics
from llm_engine.api.origins import Origins, same_origin

from tests.support.engine import EngineServer

TIMEOUT = 60.0


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "//[x", "http://\xff[", "null"])
def test_an_origin_that_is_none(engine: EngineServer, origin: str) -> None:
    answer = engine.client.request("GET", "/v1/models", headers={"Origin": origin})
    assert (answer.status, answer.body) == (403, b"")
    assert answer.headers["x-request-id"]
    assert not same_origin(origin, "127.0.0.1", "http")


def test_an_upgrade_is_an_ordinary_request(engine: EngineServer) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    evil = engine.client.request("GET", "/v1/models", headers={**upgrade, "Host": "evil.example"})
    assert (evil.status, evil.body) == (403, b"")
    fine = engine.client.request("GET", "/v1/models", headers={**upgrade, "Sec-WebSocket-Key": "eA=="})
    assert fine.status == 200 and fine.json["object"] == "list"
    assert not [line for line in engine.lines() if "Upgrading" in str(line) or "pip install" in str(line)]


@pytest.mark.parametrize(("path", "shape"), [("/api/chat", "error"), ("/v1/messages", "type")])
def test_what_goes_wrong_in_the_server_is_told_and_counted(path: str, shape: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    metrics = Metrics()
    gate = Gate(app, allowed_origins=Origins(()), check_host=True, keys=None, metrics=metrics)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    asyncio.run(gate({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send))
    start, body = sent
    assert start["status"] == 500 and b"x-request-id" in dict(start["headers"])
    assert f'"{shape}"'.encode() in body["body"] and b"internal error" in body["body"]
    assert 'requests_total{method="GET",route="unmatched",status="500"} 1.0' in metrics.render().decode()


@pytest.fixture
def line(engine: EngineServer) -> Iterator[socket.socket]:
    with socket.create_connection((engine.client.host, engine.client.port), TIMEOUT) as connection:
        yield connection


def status_of(connection: socket.socket) -> int:
    """The status, and then the end of the connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert str(MOST_HEAD) in answer.read().decode()
    assert connection.recv(1) == b""
    return answer.status


def pour(connection: socket.socket, *pieces: bytes) -> None:
    """Sends until the other side has had enough."""
    try:
        for piece in pieces:
            connection.sendall(piece)
    except OSError:
        return


START = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "head",
    [
        START + b"X-Long: " + b"a" * (2 * MOST_HEAD),
        START + b"a" * (2 * MOST_HEAD),
        START + b"X-Many: 12345678901234567890\r\n" * (MOST_HEAD // 24),
        b"GET /" + b"a" * (2 * MOST_HEAD),
        b"GET /?" + b"a" * MOST_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n",
    ],
    ids=["value", "name", "many", "path", "query"],
)
@pytest.mark.parametrize("piece", [8192, 1 << 20])
def test_a_head_without_end(line: socket.socket, head: bytes, piece: int) -> None:
    """In small pieces, as a slow sender's arrive, or in as few as the system makes of them."""
    pour(line, *(head[at : at + piece] for at in range(0, len(head), piece)))
    assert status_of(line) == 431


def test_a_large_head_and_a_large_body_are_fine(engine: EngineServer, line: socket.socket) -> None:
    raw = b'{"model":"nope","prompt":"' + b"x" * (8 * MOST_HEAD) + b'"}'
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * (MOST_HEAD - 4096) + b"\r\n"
    for _ in range(3):
        line.sendall(head + f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert (answer.status, b"not found" in answer.read()) == (404, True)
    chunked = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    line.sendall(chunked + b"2\r\n{}\r\n0\r\n")
    pour(line, *[b"X-Trailer: " + b"a" * 4096 + b"\r\n"] * 40)
    with contextlib.suppress(ConnectionResetError):
        assert line.recv(1) == b"", "trailers have the same bound"
    assert engine.client.alive()

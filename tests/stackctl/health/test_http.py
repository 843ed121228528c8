"""The small HTTP client: answers, refusals, silence and servers that never end."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from stackctl.health.http import HttpError, HttpTimeout, request
from tests.stackctl.health.support.servers import dripping_server, recording_server


def test_an_answer_of_any_status_is_a_reply() -> None:
    with recording_server() as server:
        server.answer = lambda seen: (503, {"Retry-After": "7"}, b'{"a": 1}')
        reply = request("POST", f"{server.url}/x?y=1", timeout=5, body=b"hello", headers={"X-A": "b"})
    assert (reply.status, reply.headers["retry-after"], reply.json()) == (503, "7", {"a": 1})
    assert (server.seen[0].path, server.seen[0].body, server.seen[0].headers["X-A"]) == (
        "/x?y=1",
        b"hello",
        "b",
    )


def test_refused_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(HttpError, match=f"127.0.0.1:{port}: connection refused"):
            request("GET", f"http://127.0.0.1:{port}/", timeout=5)


def test_a_silent_server_is_a_time_out() -> None:
    with recording_server() as server:
        server.hang.set()
        with pytest.raises(HttpTimeout, match=r"within 0\.3 s"):
            request("GET", server.url, timeout=0.3)


def test_a_dripping_server_cannot_outstay_the_deadline() -> None:
    with dripping_server() as url:
        begun = time.monotonic()
        with pytest.raises(HttpTimeout):
            request("GET", url, timeout=0.5)
        assert time.monotonic() - begun < 3


def test_not_http_and_not_json(tmp_path: Path) -> None:
    with recording_server() as server, pytest.raises(HttpError, match="not JSON"):
        request("GET", server.url, timeout=5).json()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen()
        import threading

        def talk() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(HttpError, match="SSH-2"):
            request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5)
        thread.join()
    with pytest.raises(HttpError, match="No such file"):
        request("GET", "http://docker/_ping", timeout=5, unix_socket=str(tmp_path / "no.sock"))

"""The real Docker Engine behind a socket that answers everything but one question."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

ENGINE = "/var/run/docker.sock"
LOGS = re.compile(rb"GET /v[\d.]+/containers/\w+/logs\?")
REFUSAL = b'{"message":"log driver broke"}'


@contextlib.contextmanager
def without_logs(path: Path) -> Iterator[str]:
    """Gives the DOCKER_HOST; a question for logs is answered with an error."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_relay, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _relay(client: socket.socket) -> None:
    with client, socket.socket(socket.AF_UNIX) as engine:
        engine.connect(ENGINE)
        threading.Thread(target=_pump, args=(engine, client), daemon=True).start()
        # A client asks the next question when it has the answer: each begins what is received at once.
        while data := _received(client):
            if LOGS.match(data):
                head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(REFUSAL)
                client.sendall(head + length + REFUSAL)
                break
            engine.sendall(data)
        with contextlib.suppress(OSError):
            engine.shutdown(socket.SHUT_WR)


def _pump(engine: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := engine.recv(1 << 16):
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 16)
    except OSError:
        return b""

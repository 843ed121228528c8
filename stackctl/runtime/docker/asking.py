"""Questions to the Docker Engine through its own socket: what the `docker` program would do for a twentieth
of a second of CPU each, and the SDK for a third.

Only looks, and only where the engine is this host's: whoever asks falls back on the program for all else.
"""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote

from stackctl.runtime.docker import endpoint

_SOCKET = "unix://"


class NotHere(Exception):
    """The engine is not reached in this way, or said nothing that can be used."""


def image(reference: str, *, timeout: float = 10.0) -> dict[str, Any] | None:
    """What `docker image inspect` tells; None when there is no such image."""
    status, body = _get(f"/images/{quote(reference, safe='/:@')}/json", timeout)
    if status == 404:
        return None
    return _document(status, body)


def information(*, timeout: float = 30.0) -> dict[str, Any]:
    """What `docker info` tells."""
    return _document(*_get("/info", timeout))


def _document(status: int, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body) if status == 200 else None
    except ValueError as error:
        raise NotHere from error
    if not isinstance(found, dict):
        raise NotHere
    return found


def _get(path: str, timeout: float) -> tuple[int, bytes]:
    host = endpoint.resolve().host
    if not host.startswith(_SOCKET):
        raise NotHere
    # HTTP/1.0: the answer ends where the connection does.
    question = f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(host.removeprefix(_SOCKET))
            connection.sendall(question)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body
    except (OSError, ValueError, IndexError) as error:
        raise NotHere from error

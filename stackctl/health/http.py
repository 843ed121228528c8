"""The smallest HTTP client that does: checks, pings and messages all go through `request`.

Not a library: importing one would cost more CPU than a whole health run may take. One connection per
request, an overall deadline (a server that drips bytes cannot outstay it), Unix sockets, TLS only when
asked for.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_LARGEST = 16 * 1024 * 1024


class HttpError(Exception):
    """No usable answer: refused, late, not HTTP. The text is for a person."""


class HttpTimeout(HttpError):
    """The other side is there but does not answer in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HttpError(f"answered something that is not JSON: {self.text[:80]!r}") from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    method: str,
    url: str,
    *,
    timeout: float,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    unix_socket: str | None = None,
) -> Reply:
    """One exchange; HttpError (or HttpTimeout) when there is no answer at all."""
    deadline = time.monotonic() + timeout
    try:
        parts = urlsplit(url)
        where = unix_socket or parts.netloc.rpartition("@")[2]
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout, unix_socket)
    except (ValueError, http.client.HTTPException) as error:
        raise HttpError(f"{url}: {error}") from error
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers={"User-Agent": "stackctl", **(headers or {})})
        response = connection.getresponse()
        content = _read(connection, response, deadline)
        return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, content)
    except TimeoutError as error:
        raise HttpTimeout(f"no answer from {where} within {timeout:.1f} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HttpError(f"{where}: {_reason(error)}") from error
    finally:
        connection.close()


def _connection(
    scheme: str, host: str, port: int | None, timeout: float, unix_socket: str | None
) -> http.client.HTTPConnection:
    if unix_socket is not None:
        return _UnixConnection(unix_socket, timeout)
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _read(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float
) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while size < _LARGEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        chunk = response.read1(65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise http.client.HTTPException(f"the answer is larger than {_LARGEST} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

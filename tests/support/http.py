"""The smallest HTTP client that tests need: it shows status, headers and body as they are."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """An NDJSON body."""
        return [json.loads(line) for line in self.body.splitlines() if line]

    @property
    def events(self) -> list[tuple[str | None, Any]]:
        """An event stream: names and documents; `[DONE]` stays text."""
        found: list[tuple[str | None, Any]] = []
        for block in self.body.decode().split("\n\n"):
            name, data = None, None
            for line in block.splitlines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = line[6:]
            if data is not None:
                found.append((name, data if data == "[DONE]" else json.loads(data)))
        return found


class Client:
    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80

    def alive(self) -> bool:
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A response whose body is still to be read; the caller closes the connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, raw, dict(headers or {}))
        return connection, connection.getresponse()

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection, response = self.open(method, path, body, headers)
        try:
            return Answer(
                response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.request("POST", path, body, headers)

    def stream(self, path: str, body: Any) -> Iterator[bytes]:
        """Lines as they come; leaving early closes the connection."""
        connection, response = self.open("POST", path, body)
        try:
            while line := response.readline():
                yield line
        finally:
            response.close()
            connection.close()

"""The verbs' way to the server: a small blocking HTTP client, so that `list` starts in a blink."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from llm_engine.cli.fixes import fix_for
from llm_engine.errors import EngineError

TIMEOUT = 3600.0  # a load may take long before the first byte
DEFAULT_PORTS = {"http": 80, "https": 443}
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class ServerError(EngineError):
    """The server said no; the text is its own."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, fix=fix_for(text))
        self.status = status


class NoServer(EngineError):
    def __init__(self, url: str, why: object) -> None:
        super().__init__(f"could not connect to the engine at {url}: {why}", fix="llm-engine serve")


class Client:
    def __init__(self, host: str | None = None) -> None:
        text = (os.environ.get("OLLAMA_HOST", "") if host is None else host).strip().strip("\"'")
        given = "://" in text
        parts = urlsplit(text if given else f"http://{':' + text if text.isdigit() else text}")
        self.scheme = parts.scheme
        try:
            port = parts.port
        except ValueError:
            port = None
        self.port = port or (DEFAULT_PORTS.get(self.scheme, 11434) if given else 11434)
        name = parts.hostname or ""
        self.host = UNSPECIFIED.get(name, name)
        self.path = parts.path.rstrip("/")

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The response, its status judged; the body is still to be read."""
        raw = body if body is None or hasattr(body, "read") else json.dumps(body).encode()
        sent = {"User-Agent": "llm-engine", **(headers or {})}
        if key := os.environ.get("LLM_ENGINE_API_KEY") or os.environ.get("OLLAMA_API_KEY"):
            sent["Authorization"] = f"Bearer {key}"
        try:
            if self.scheme == "https":
                context = ssl.create_default_context()
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self.host, self.port, timeout=TIMEOUT, context=context
                )
            else:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
            connection.request(method, self.path + path, raw, sent)
            response = connection.getresponse()
        except OSError as error:
            raise NoServer(self.url, error) from None
        if response.status >= 400 and method != "HEAD":
            raise ServerError(_reason(response), response.status)
        return response

    def json(self, method: str, path: str, body: Any = None) -> Any:
        with self.send(method, path, body) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def stream(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """The objects of an NDJSON answer; an error object ends it with ServerError."""
        with self.send("POST", path, body) as response:
            try:
                for line in response:
                    if not line.strip():
                        continue
                    item = json.loads(line)
                    if "error" in item:
                        raise ServerError(str(item["error"]), response.status)
                    yield item
            except (http.client.HTTPException, OSError) as error:
                raise ServerError(f"the connection to {self.url} broke: {error}", 0) from None

    def upload(self, digest: str, file: BinaryIO, size: int) -> None:
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self.send("POST", f"/api/blobs/{digest}", file, headers) as response:
            response.read()


def _reason(response: http.client.HTTPResponse) -> str:
    raw = response.read(65536)
    try:
        text = json.loads(raw)["error"]
        return str(text["message"] if isinstance(text, dict) else text)
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"

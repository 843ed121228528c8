"""A small client for the engine's HTTP API, on the standard library: what status, health and models need.

Every failure is an EngineError with the engine's own words; a connection that cannot be made is
EngineUnreachable.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from stackctl.errors import StackctlError


class EngineError(StackctlError):
    """The engine answered with an error; `status` is the HTTP status, or 0 for one inside a stream."""

    def __init__(self, what: str, status: int = 0, *, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.status = status


class EngineUnreachable(EngineError):
    """Nothing answered at the engine's address."""


class EngineClient:
    def __init__(self, base_url: str, *, timeout: float = 10.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineError(f"'{base_url}' is not the address of an engine")
        self.base_url = base_url.rstrip("/")
        self._parts = parts
        self._timeout = timeout

    def alive(self) -> bool:
        try:
            self.version()
        except EngineError:
            return False
        return True

    def version(self) -> str:
        return str(self.get("/api/version")["version"])

    def tags(self) -> list[dict[str, Any]]:
        return list(self.get("/api/tags")["models"] or [])

    def ps(self) -> list[dict[str, Any]]:
        return list(self.get("/api/ps")["models"] or [])

    def show(self, model: str) -> dict[str, Any]:
        return self.post("/api/show", {"model": model})

    def generate(
        self,
        model: str,
        prompt: str = "",
        *,
        keep_alive: str | int | None = None,
        timeout: float = 300.0,
        **options: Any,
    ) -> dict[str, Any]:
        """One whole answer. With an empty prompt the model is only loaded (or, with keep_alive 0,
        unloaded)."""
        body: dict[str, Any] = {"model": model, "prompt": prompt, "stream": False}
        if options:
            body["options"] = options
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        return self.post("/api/generate", body, timeout=timeout)

    def pull(self, model: str) -> Iterator[dict[str, Any]]:
        """The engine's progress events; ends after `status: success`."""
        yield from self.stream("/api/pull", {"model": model, "stream": True})

    def copy(self, source: str, destination: str) -> None:
        """A second name for the same model; the engine answers with nothing."""
        body = {"source": source, "destination": destination}
        self._request("POST", "/api/copy", body, self._timeout)

    def delete(self, model: str) -> None:
        self._request("DELETE", "/api/delete", {"model": model}, self._timeout)

    def metrics(self) -> str:
        return self._request("GET", "/metrics", None, self._timeout).decode("utf-8", "replace")

    def get(self, path: str) -> dict[str, Any]:
        return self._document(self._request("GET", path, None, self._timeout), path)

    def post(self, path: str, body: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        return self._document(self._request("POST", path, body, timeout or self._timeout), path)

    def stream(self, path: str, body: dict[str, Any], *, timeout: float = 600.0) -> Iterator[dict[str, Any]]:
        """NDJSON answers, one object after the other; `timeout` is between two of them."""
        connection = self._connect(timeout)
        try:
            response = self._send(connection, "POST", path, body)
            for line in response:
                if line.strip():
                    event = self._document(line, path)
                    if "error" in event:
                        raise EngineError(str(event["error"]))
                    yield event
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnreachable(
                f"the engine at {self.base_url} stopped answering: {_why(error)}"
            ) from error
        finally:
            connection.close()

    def _request(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> bytes:
        connection = self._connect(timeout)
        try:
            return self._send(connection, method, path, body).read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnreachable(
                f"no engine answers at {self.base_url}: {_why(error)}", fix="stackctl status"
            ) from error
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None
        return kind(self._parts.hostname, self._parts.port, timeout=timeout)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(
            method,
            self._parts.path.rstrip("/") + path,
            json.dumps(body) if body is not None else None,
            headers,
        )
        response = connection.getresponse()
        if response.status >= 400:
            said = _message(response.read(), response.status)
            fix = "stackctl models list" if response.status == 404 and "model" in said else None
            raise EngineError(said, response.status, fix=fix)
        return response

    def _document(self, raw: bytes, path: str) -> dict[str, Any]:
        try:
            document = json.loads(raw)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise EngineError(f"{self.base_url}{path} did not answer with JSON: {raw[:80]!r}")
        return document


def _message(raw: bytes, status: int) -> str:
    try:
        found = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        return f"the engine answered {status}: {raw[:200].decode('utf-8', 'replace')}"
    return str(found["message"] if isinstance(found, dict) and "message" in found else found)


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Finds the endpoint of a request and runs it; what is not there is answered in Ollama's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from llm_engine.api.endpoint import Call, Endpoint, Exchange
from llm_engine.api.state import Engine

_PARAMETER = re.compile(r"\{(\w+)\}")


class Router:
    """Exact paths by table, the few with a parameter by pattern."""

    def __init__(self, engine: Engine, endpoints: Iterable[Endpoint]) -> None:
        self.engine = engine
        self.endpoints = list(endpoints)
        self.exact: dict[str, dict[str, Endpoint]] = {}
        self.patterns: list[tuple[re.Pattern[str], dict[str, Endpoint]]] = []
        for endpoint in self.endpoints:
            table = self._table(endpoint.path)
            for method in endpoint.methods:
                assert method not in table, f"{method} {endpoint.path} is declared twice"
                table[method] = endpoint

    def _table(self, path: str) -> dict[str, Endpoint]:
        if "{" not in path:
            return self.exact.setdefault(path, {})
        # A parameter is the rest of the path: names of models contain slashes.
        pattern = re.compile(_PARAMETER.sub(r"(?P<\1>.+)", path), re.DOTALL)
        for known, table in self.patterns:
            if known.pattern == pattern.pattern:
                return table
        fresh: dict[str, Endpoint] = {}
        self.patterns.append((pattern, fresh))
        return fresh

    def find(self, path: str) -> tuple[dict[str, Endpoint], dict[str, str]] | None:
        if table := self.exact.get(path):
            return table, {}
        for pattern, candidate in self.patterns:
            if match := pattern.fullmatch(path):
                return candidate, {key: unquote(value) for key, value in match.groupdict().items()}
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        found = self.find(path)
        if found is None:
            await self._missing(path, scope, send)
            return
        table, parameters = found
        endpoint = table.get(scope["method"])
        if endpoint is None:
            scope["route_path"] = next(iter(table.values())).path
            await _plain(send, 405, b"405 method not allowed", allow=", ".join(sorted(table)))
            return
        scope["route_path"] = endpoint.path
        call = Call(
            engine=self.engine,
            dialect=endpoint.dialect,
            scope=scope,
            headers=Headers(scope=scope),
            path_params=parameters,
            request_id=scope["request_id"],
            client=scope["client_name"],
            receive=receive,
            limit=self.engine.settings.max_body if endpoint.limit is None else endpoint.limit,
        )
        await Exchange(endpoint, call, send).run()

    async def _missing(self, path: str, scope: Scope, send: Send) -> None:
        other = path.rstrip("/") if path.endswith("/") else path + "/"
        if other and other != path and other in self.exact and other != "/":
            status = 301 if scope["method"] == "GET" else 307
            query = scope.get("query_string", b"").decode("latin-1")
            await _plain(send, status, b"", location=f"{other}?{query}" if query else other)
            return
        await _plain(send, 404, b"404 page not found")


async def _plain(send: Send, status: int, content: bytes, **headers: str) -> None:
    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    pairs += [(b"content-type", b"text/plain"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})

"""What every request passes before a handler: its id, the Host and Origin checks, the API key, and the
access log.

A plain ASGI middleware: it adds headers to the first message and counts, and touches no body.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_engine import logs
from llm_engine.api import goencode, origins
from llm_engine.api.errors import ApiError, Dialect, body
from llm_engine.api.keys import KeyRing, presented_key
from llm_engine.api.metrics import Metrics

log = logging.getLogger("llm_engine.api.access")
_GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
UNANSWERED = 499
"""The status of a request whose client left before the answer began."""
PUBLIC_PATHS = frozenset({"/", "/healthz", "/readyz", "/api/version"})


def dialect_of(path: str) -> Dialect:
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


class Gate:
    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_origins: origins.Origins,
        check_host: bool,
        keys: KeyRing | None,
        metrics: Metrics,
    ) -> None:
        self.app = app
        self.origins = allowed_origins
        self.check_host = check_host
        self.keys = keys
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server offers nothing else, and nothing else is checked here"
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _GOOD_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope["request_id"] = request_id
        scope["client_name"] = (scope.get("client") or ("local",))[0]
        scope["key_name"] = "-"
        token = logs.request_id.set(request_id)
        started = time.monotonic()
        status = UNANSWERED
        extra = [(b"x-request-id", request_id.encode())]

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        try:
            refused = self._check(scope, headers, extra)
            if refused is not None:
                await _answer(refused, scope, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request failed", extra={"data": {"path": scope["path"]}})
            if status != UNANSWERED:
                raise  # the answer has begun: the server can only end the connection
            failure = ApiError(500, "internal error; the server's log has the details")
            await _answer(failure, scope, send_with_headers)
        finally:
            self._account(scope, status, time.monotonic() - started)
            logs.request_id.reset(token)

    def _check(
        self, scope: Scope, headers: Headers, extra: list[tuple[bytes, bytes]]
    ) -> ApiError | int | None:
        """None: go on. A status: answer it with an empty body. An error: answer it in the API's shape."""
        host = headers.get("host", "")
        if self.check_host and not origins.host_allowed(host):
            return 403
        origin = headers.get("origin")
        if origin and not origins.same_origin(origin, host, scope.get("scheme", "http")):
            if not self.origins.allows(origin):
                return 403
            extra.append((b"access-control-allow-origin", origin.encode("latin-1")))
            extra.append((b"vary", b"Origin"))
            extra.append((b"access-control-expose-headers", origins.EXPOSED_HEADERS.encode()))
        if scope["method"] == "OPTIONS":
            if origin:
                extra.append((b"access-control-allow-methods", origins.ALLOWED_METHODS.encode()))
                extra.append((b"access-control-allow-headers", origins.ALLOWED_HEADERS.encode()))
                extra.append((b"access-control-max-age", b"43200"))
            return 204
        if self.keys is not None and scope["path"] not in PUBLIC_PATHS:
            name = self.keys.name_of(presented_key(headers))
            if name is None:
                return ApiError(
                    401,
                    "invalid or missing API key",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            scope["client_name"] = f"key:{name}"
            scope["key_name"] = name
        return None

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route_path", "unmatched")
        self.metrics.request(route, scope["method"], status, seconds, scope["key_name"])
        log.info(
            "request",
            extra={
                "data": {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(seconds, 4),
                    "client": scope["client_name"],
                }
            },
        )


async def _answer(refused: ApiError | int, scope: Scope, send: Send) -> None:
    if isinstance(refused, int):
        status, content = refused, b""
        headers = [(b"content-length", b"0")]
    else:
        status = refused.status
        content = goencode.dumps(body(refused, dialect_of(scope["path"]), scope["request_id"]))
        headers = [(b"content-type", b"application/json; charset=utf-8")]
        headers += [(key.lower().encode(), value.encode()) for key, value in refused.headers.items()]
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

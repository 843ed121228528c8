"""One error type for every API, and how each API writes it down.

A handler raises ApiError with a status and a sentence; the dialect of the route that was called decides the
JSON around it, before the first byte and after it. Nothing else in the engine formats an error.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Dialect(enum.Enum):
    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class ApiError(Exception):
    """What a client did wrong, or what went wrong for it; `message` is for its eyes."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def bad_request(message: str, *, param: str | None = None) -> ApiError:
    return ApiError(400, message, param=param)


def not_found(message: str) -> ApiError:
    return ApiError(404, message, code="model_not_found")


class QueueFull(ApiError):
    """Every waiting place is taken; the headers say how many wait, which place this request would have had,
    and when trying again is worth it."""

    def __init__(self, queued: int, retry_after: int) -> None:
        super().__init__(
            503,
            "server busy, please try again.  maximum pending requests exceeded",
            code="queue_full",
            headers={
                "Retry-After": str(retry_after),
                "X-Queue-Length": str(queued),
                "X-Queue-Position": str(queued + 1),
            },
        )


_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def body(error: ApiError, dialect: Dialect, request_id: str) -> dict[str, Any]:
    """The JSON document of an error in the shape of the API that was called."""
    if dialect is Dialect.OLLAMA:
        return {"error": error.message}
    if dialect is Dialect.OPENAI:
        return {
            "error": {
                "message": error.message,
                "type": _OPENAI_TYPES.get(error.status, "api_error"),
                "param": error.param,
                "code": error.code,
            }
        }
    return {
        "type": "error",
        "error": {"type": _ANTHROPIC_TYPES.get(error.status, "api_error"), "message": error.message},
        "request_id": request_id if request_id.startswith("req_") else f"req_{request_id}",
    }

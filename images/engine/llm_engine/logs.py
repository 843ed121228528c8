"""Structured logs: one JSON object a line on stderr, each with the request it belongs to, none with prompt
text.

`extra={"data": {...}}` adds fields. The request id travels in a context variable, so code far from HTTP (the
scheduler, the store) logs it without knowing of HTTP.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import time
import traceback

import orjson

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        data = getattr(record, "data", None)
        if isinstance(data, dict):
            line.update(data)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return orjson.dumps(line, default=str).decode()


def setup(*, debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # asyncio warns about each write to a client that has just gone; that is no news.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("llm_engine").setLevel(logging.DEBUG if debug else logging.INFO)

"""Writes JSON as Go does: compact, with `<`, `>`, `&` and the two line separators escaped, and Go's times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def dumps(value: Any) -> bytes:
    raw = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    for char, escape in _ESCAPES:
        if char in raw:  # these bytes occur inside strings only
            raw = raw.replace(char, escape)
    return raw


def now() -> str:
    """RFC 3339 in UTC with the trailing zeros of the fraction stripped."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{moment.microsecond:06d}".rstrip("0")
    offset = moment.strftime("%z")
    zone = "Z" if offset in ("", "+0000") else f"{offset[:3]}:{offset[3:]}"
    return f"{text}.{fraction}{zone}" if fraction else f"{text}{zone}"

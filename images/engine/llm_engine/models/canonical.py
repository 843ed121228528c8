"""JSON exactly as Go's encoder writes it, because digests of layers are computed over these bytes.

Compact, `<`, `>`, `&` and the two line separators escaped, map keys sorted by the caller's wish, floats in
Go's form."""

from __future__ import annotations

import json
import math
from typing import Any

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """One JSON value and the newline that Go's encoder puts behind it."""
    return (_text(value, sort_keys) + "\n").encode()


def _text(value: Any, sort_keys: bool) -> str:
    if isinstance(value, dict):
        items = sorted(value.items()) if sort_keys else value.items()
        return "{" + ",".join(f"{_string(str(k))}:{_text(v, sort_keys)}" for k, v in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(item, sort_keys) for item in value) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return go_float(value)
    return json.dumps(value)


def _string(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    for char, escape in _ESCAPES.items():
        if char in written:
            written = written.replace(char, escape)
    return written


def go_float(value: float) -> str:
    """Shortest digits; an exponent below 1e-6 and from 1e21 on, without a leading zero."""
    if not math.isfinite(value):
        raise ValueError(f"json: unsupported value: {value}")
    if value == int(value) and abs(value) < 1e21:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if abs(value) >= 1e21:
        return f"{mantissa}e+{int(exponent)}"
    if abs(value) < 1e-6:
        return f"{mantissa}e{int(exponent)}"
    return _plain(value) if e else text


def _plain(value: float) -> str:
    digits = repr(value)
    mantissa, _, exponent = digits.partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent)
    return f"{value:.{places}f}"

"""JSON as models write it: mostly right, sometimes without its last brackets, with raw line breaks or with
Python's words in it. A text that was cut off is not mended: its other half is not known.
"""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

# Python's parser needs far more memory and stack than the JSON reader.
MAX_LITERAL, MAX_BRACKETS = 100_000, 200


_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')


class JsonSpan:
    """Finds the end of a JSON object or array in a growing text, reading each character once."""

    __slots__ = ("_closers", "_escaped", "in_string")

    def __init__(self) -> None:
        self._closers: list[str] = []
        self.in_string = False
        self._escaped = False

    def feed(self, text: str, start: int = 0) -> int | None:
        """The position after the value's last character, or None while it is open."""
        at = start + 1 if self._escaped and start < len(text) else start
        self._escaped = self._escaped and start >= len(text)
        while found := (_INSIDE if self.in_string else _OUTSIDE).search(text, at):
            char, at = found[0], found.end()
            if self.in_string:
                if char == '"':
                    self.in_string = False
                elif at < len(text):
                    at += 1
                else:
                    self._escaped = True
            elif char == '"':
                self.in_string = True
            elif char in "{[":
                self._closers.append("}" if char == "{" else "]")
            elif self._closers:
                self._closers.pop()
                if not self._closers:
                    return at
        return None

    @property
    def missing(self) -> str:
        """The brackets that would close the value."""
        return "".join(reversed(self._closers))


def loads(text: str) -> Any:
    """The value of `text`, mended if need be; ValueError when it cannot be."""
    text = text.strip()
    for attempt in (strict, _lenient, _closed, _python):
        try:
            return attempt(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    raise ValueError("not JSON")


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is more than a number holds")
    return value


def strict(text: str) -> Any:
    """JSON and nothing else."""
    return json.loads(text, parse_constant=_constant, parse_float=_float)


def _lenient(text: str) -> Any:
    """Raw line breaks and tabs inside strings."""
    return json.loads(text, strict=False, parse_constant=_constant, parse_float=_float)


def _closed(text: str) -> Any:
    """Without a trailing comma, and with the brackets that are missing at the end."""
    span = JsonSpan()
    if span.feed(text) is not None:
        raise ValueError("closed already")
    if span.in_string:
        raise ValueError("cut off in a text")
    return _lenient(text.rstrip().rstrip(",") + span.missing)


def _python(text: str) -> Any:
    """A Python literal: single quotes, True, None, trailing commas."""
    if len(text) > MAX_LITERAL or text.count("{") + text.count("[") + text.count("(") > MAX_BRACKETS:
        raise ValueError("too much for a literal")
    value = ast.literal_eval(text)
    json.dumps(value, allow_nan=False)  # only what JSON can say
    return value

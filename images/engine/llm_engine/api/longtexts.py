"""Reads large JSON bodies in short steps, so that the thread that does it never holds up the others.

A JSON parser written in C keeps the interpreter to itself until it is done: in a thread, too, a body of fifty
megabytes would stop every stream for as long as it takes. But what makes a body large is long texts:
pictures, documents. They are lifted out and decoded piece by piece; what is left is parsed at once, and
may therefore not be larger than `MOST_STRUCTURE`, nor hold more than `MOST_CONTAINERS`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import orjson

from llm_engine.api.goscan import scan

LARGE = 1 << 20
"""Bodies up to here are parsed in one step of a few milliseconds."""
MOST_STRUCTURE = 4 << 20
MOST_CONTAINERS = 100_000
"""Lists and objects, each of which takes as long to make as a hundred bytes of numbers."""
LONG = 256
STEP = 1 << 18
_CONTROL = re.compile(rb"[\x00-\x1f]")
# Some characters and escapes, never half of an escape nor of a pair of surrogates.
_SOME = re.compile(
    rb"(?:[^\\]{1,256}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[0-9a-fA-F]{4}|\\[^u]){0,2000}"
)
Parse = Callable[[bytes], Any]


class TooMuch(ValueError):
    """More structure than is parsed in one request."""

    def __init__(self) -> None:
        super().__init__(
            f"request body holds more than {MOST_STRUCTURE} bytes besides its long texts, "
            f"or more than {MOST_CONTAINERS} lists and objects"
        )


class _Odd(Exception):
    """A text that the whole parser must judge."""


def loads(raw: bytes, parse: Parse) -> Any:
    """What `parse` makes of the body; `parse` itself only sees the short parts of it."""
    mark = f"{secrets.token_hex(8)}:"
    texts: dict[str, str] = {}
    parts: list[bytes] = []
    start = at = 0
    end = len(raw)
    while (opening := raw.find(b'"', at, end)) >= 0:
        closing = _closing(raw, opening + 1, end)
        if closing < 0:
            end = scan(raw, max_depth=1 << 30)  # says what is wrong, or where the first value ends
            break
        if closing - opening > LONG:
            name = f"{mark}{len(texts)}"
            try:
                texts[name] = _text(raw, opening + 1, closing)
            except _Odd:
                scan(raw, max_depth=1 << 30)
                raise
            parts += (raw[start:opening], f'"{name}"'.encode())
            start = closing + 1
        at = closing + 1
    parts.append(raw[start:end])
    skeleton = b"".join(parts)
    if len(skeleton) > MOST_STRUCTURE or skeleton.count(b"[") + skeleton.count(b"{") > MOST_CONTAINERS:
        raise TooMuch
    return _put_back(parse(skeleton), texts)


def _closing(raw: bytes, at: int, end: int) -> int:
    """Where the text that begins at `at` ends, or -1."""
    while (quote := raw.find(b'"', at, end)) >= 0:
        back = quote
        while back > at and raw[back - 1] == 0x5C:
            back -= 1
        if (quote - back) % 2 == 0:
            return quote
        at = quote + 1
    return -1


def _text(raw: bytes, at: int, end: int) -> str:
    plain = raw.find(b"\\", at, end) < 0
    pieces: list[str] = []
    while at < end:
        stop = min(at + STEP, end) if plain else _some(raw, at, end)
        while at < stop < end and raw[stop] & 0xC0 == 0x80:  # not inside a character
            stop -= 1
        piece = raw[at:stop]
        if not piece or _CONTROL.search(piece):
            raise _Odd
        pieces.append(piece.decode("utf-8", "replace") if b"\\" not in piece else _unescaped(piece))
        at = stop
    return "".join(pieces)


def _some(raw: bytes, at: int, end: int) -> int:
    found = _SOME.match(raw, at, end)
    return found.end() if found else at


def _unescaped(piece: bytes) -> str:
    quoted = b'"' + piece + b'"'
    try:
        found: str = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        try:
            lenient: str = json.loads(quoted.decode("utf-8", "replace"))
        except ValueError:
            raise _Odd from None
        return lenient.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return found


def _put_back(value: Any, texts: dict[str, str]) -> Any:
    if not texts:
        return value
    if isinstance(value, str):
        return texts.get(value, value)
    nodes = [value] if isinstance(value, (dict, list)) else []
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict) and not texts.keys().isdisjoint(node):
            renamed = {texts.get(key, key): item for key, item in node.items()}
            node.clear()
            node.update(renamed)
        for place, item in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(item, str):
                if item in texts:
                    node[place] = texts[item]
            elif isinstance(item, (dict, list)):
                nodes.append(item)
    return value

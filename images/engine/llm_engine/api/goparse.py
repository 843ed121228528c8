"""From the bytes of a body to its first JSON value, as Go's scanner reads it: bytes after that value are
ignored, broken text becomes U+FFFD.

What is legal JSON but more than this program can hold (depth, numbers beyond a float) is told in Go's words,
and never surprises who uses the value later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from llm_engine.api import longtexts
from llm_engine.api.goscan import GoSyntaxError, scan

MAX_DEPTH = 200
"""What is echoed in an answer must be deep enough for the writer of JSON, too, which goes down 254 levels."""
MOST_DIGITS = 400
"""A whole number of more digits is beyond every float; to read its digits would take long."""
SHOWN_DIGITS = 60


class GoDecodeError(ValueError):
    """The body is not what the Go struct of the same name would accept; the text is Go's."""


class Infinite(float):
    """A number that is legal JSON and larger than any float: refused where it is used, as Go does."""

    text: str

    def __new__(cls, text: str) -> Infinite:
        made = super().__new__(cls, "-inf" if text.startswith("-") else "inf")
        made.text = text if len(text) <= SHOWN_DIGITS else f"{text[:SHOWN_DIGITS]}..."
        return made


def parse(raw: bytes) -> Any:
    """The first JSON value of a body; GoDecodeError says what is wrong with it. Numbers beyond a float are
    `Infinite` in it."""
    if len(raw) <= longtexts.LARGE:
        return _parse(raw)
    try:
        return longtexts.loads(raw, _parse)
    except GoSyntaxError as error:
        raise GoDecodeError(str(error)) from None


def _parse(raw: bytes) -> Any:
    try:
        with _uncollected():
            value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _parse_leniently(raw)
    if isinstance(value, (dict, list)) and _deeper_than(value, MAX_DEPTH):
        raise GoDecodeError("exceeded max depth")
    return value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look at all that is being made again and again, while no
    other thread can run."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse_leniently(raw: bytes) -> Any:
    try:
        end = scan(raw, max_depth=MAX_DEPTH)
    except GoSyntaxError as error:
        raise GoDecodeError(str(error)) from None
    numbers = _Numbers()
    text = raw[:end].decode("utf-8", "replace")
    value = _without_surrogates(
        json.loads(text, strict=False, parse_int=numbers.integer, parse_float=numbers.fraction)
    )
    return Overflowing(value) if numbers.infinite and isinstance(value, dict) else value


class _Numbers:
    """Reads numbers as the fast parser does, and notes whether one was too large."""

    def __init__(self) -> None:
        self.infinite = False

    def integer(self, text: str) -> int | float:
        if len(text) > MOST_DIGITS:
            return self._too_large(text)
        value = int(text)
        return value if -(2**63) <= value < 2**64 else self.fraction(text)

    def fraction(self, text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else self._too_large(text)

    def _too_large(self, text: str) -> Infinite:
        self.infinite = True
        return Infinite(text)


class Overflowing(dict[str, Any]):
    """An object with an `Infinite` somewhere in it: others need not be searched for one."""


def whole(text: str) -> Any:
    """One JSON value and nothing but it, as clients put it into texts."""
    raw = text.encode("utf-8", "replace")
    end = len(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = parse(raw)
        with contextlib.suppress(GoSyntaxError):
            end = scan(raw, max_depth=MAX_DEPTH)
    if raw[end:].strip(b" \t\r\n"):
        raise GoDecodeError("invalid character after top-level value")
    if isinstance(value, (dict, list)) and _deeper_than(value, MAX_DEPTH):
        raise GoDecodeError("exceeded max depth")
    refuse_infinite(value)
    return value


def refuse_infinite(value: Any) -> None:
    """Raises where a number that is used is too large for a float."""
    if isinstance(value, Infinite):
        raise GoDecodeError(f"json: cannot unmarshal number {value.text} into Go value of type float64")
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif dataclasses.is_dataclass(value):
        inner = (getattr(value, item.name) for item in dataclasses.fields(value))
    for item in inner:
        refuse_infinite(item)


def _without_surrogates(value: Any) -> Any:
    """Go replaces half a surrogate pair by U+FFFD; left in, it could not be encoded later."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True

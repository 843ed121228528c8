"""What a model wrote into a tool call, as any JSON writer can write it and any client can read it.

A model may write half a surrogate pair, a number that is none, keys that are no text, or more levels than
parsers go down: none of it may end an answer, and none of it may reach a client as broken JSON.
"""

from __future__ import annotations

import json
import math
from typing import Any

from llm_engine.api.goparse import MAX_DEPTH


def text(value: str) -> str:
    """With U+FFFD for halves of surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def value(given: Any, depth: int = 0) -> Any:
    """Lists, objects, texts, finite numbers, true, false and null. What is deeper than any client reads is
    its own JSON text, and a number that is none its name."""
    if isinstance(given, str):
        return text(given)
    if isinstance(given, float) and not math.isfinite(given):
        return str(given)
    if not isinstance(given, (dict, list, tuple)):
        return given
    if depth == MAX_DEPTH:
        return json.dumps(given)
    if isinstance(given, dict):
        return {_key(key): value(item, depth + 1) for key, item in given.items()}
    return [value(item, depth + 1) for item in given]


def _key(given: Any) -> str:
    return text(given) if isinstance(given, str) else json.dumps(given)

"""Two JSON Schemas as one that holds where both do: what `allOf` means.

Bounds become the narrower ones, properties and their names add up, lists of values are cut to what both have.
What cannot be said in one schema is refused, not widened: an answer that was promised to be held to a schema
must not break it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_BOTH = ("items", "additionalItems", "additionalProperties", "contains")
_ONE_ALONE = ("pattern", "format", "prefixItems")


class Impossible(ValueError):
    """No value is as both want it."""


def join(one: dict[str, Any], other: dict[str, Any], at: str) -> dict[str, Any]:
    joined = dict(one)
    for key, value in other.items():
        if key in ("const", "enum"):
            continue
        mine = joined.get(key)
        joined[key] = value if mine is None or mine == value else _both(key, mine, value, at)
    values = _values(one, other, at)
    if values is not None:
        joined.pop("const", None)
        joined["enum"] = values
    return joined


def _both(key: str, one: Any, other: Any, at: str) -> Any:
    if key in (*_LOWER, *_UPPER):
        if isinstance(one, bool) or isinstance(other, bool) or not _numbers(one, other):
            return other  # OpenAPI's truth value speaks of a bound beside it; a wrong shape is found later
        return max(one, other) if key in _LOWER else min(one, other)
    if key == "properties" and isinstance(one, dict) and isinstance(other, dict):
        shared = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
        return {**one, **other, **{name: _plain(part) for name, part in shared.items()}}
    if key == "required" and isinstance(one, list) and isinstance(other, list):
        return list(dict.fromkeys([*one, *other]))
    if key == "type":
        return _types(one, other, at)
    if key in _BOTH:
        if one is False or other is False:
            return False
        return other if one is True else one if other is True else {"allOf": [one, other]}
    if key in ("anyOf", "oneOf") and isinstance(one, list):
        return [{"allOf": [option, {key: other}]} for option in one]
    if key in _ONE_ALONE:
        raise ValueError(f"{at}: two of {key} in allOf cannot be held to at once")
    return other


def _plain(part: dict[str, Any]) -> Any:
    first, second = part["allOf"]
    return first if first == second else part


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _types(one: Any, other: Any, at: str) -> Any:
    mine, theirs = _listed(one), _listed(other)
    both = [kind for kind in mine if kind in theirs or (kind == "integer" and "number" in theirs)]
    both += [kind for kind in theirs if kind == "integer" and "number" in mine and kind not in both]
    if not both:
        raise Impossible(
            f"{at}: allOf wants {' or '.join(map(str, mine))} and {' or '.join(map(str, theirs))}"
        )
    return both[0] if len(both) == 1 else both


def _listed(kind: Any) -> list[Any]:
    return list(kind) if isinstance(kind, list) else [kind]


def _values(one: dict[str, Any], other: dict[str, Any], at: str) -> list[Any] | None:
    """Those that both allow, where they name any at all."""
    named = [found for part in (one, other) if (found := _named(part)) is not None]
    if not named:
        return None
    left = list(named[0])
    for more in named[1:]:
        known = set(map(_key, more))
        left = [value for value in left if _key(value) in known]
    if not left:
        raise Impossible(f"{at}: no value is in all of what allOf lists")
    return left


def _named(part: dict[str, Any]) -> Iterable[Any] | None:
    if "const" in part:
        return [part["const"]]
    return part["enum"] if isinstance(part.get("enum"), list) else None


def _key(value: Any) -> str:
    """`1` and `true` are one to Python, and two to JSON."""
    return json.dumps(value, sort_keys=True)

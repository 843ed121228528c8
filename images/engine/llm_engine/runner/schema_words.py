"""What the keywords of a JSON Schema say, read so that one of a wrong shape is refused with its place.

People write schemas by hand: `"required": null` says nothing, and OpenAPI 3.0's `"exclusiveMinimum": true`
speaks of `minimum`. Anything else that has not the shape which the standard gives it is a `ValueError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

# Beyond these an integer's bound says nothing that digits, of which a grammar allows so many, do not say.
FAR = 10**20


def place(at: str, name: str) -> str:
    """The path of what stands inside; a long name is cut, as paths are for people."""
    return f"{at}/{name if len(name) <= 60 else name[:60] + '…'}"


def wrong(at: str, key: str, must: str, value: Any) -> ValueError:
    shown = json.dumps(value, ensure_ascii=False)
    return ValueError(f"{at}: {key} must be {must}, not {shown if len(shown) <= 60 else shown[:60] + '…'}")


def listed(schema: Schema, key: str, at: str) -> list[Any]:
    """A list with something in it."""
    value = schema[key]
    if not isinstance(value, list) or not value:
        thing = "value" if key == "enum" else "schema"
        raise ValueError(f"{at}: {key} must be a list with at least one {thing}")
    return value


def properties(schema: Schema, at: str) -> dict[str, Any]:
    value = schema.get("properties")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(at, "properties", "an object", value)
    return value


def required(schema: Schema, at: str) -> list[str]:
    value = schema.get("required")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise wrong(at, "required", "a list of names", value)
    return value


def count(schema: Schema, key: str, at: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or value < 0:
        raise wrong(at, key, "a whole number that is not negative", value)
    return value


def integer_bounds(schema: Schema, at: str) -> tuple[int | None, int | None]:
    """The smallest and the largest integer; None where there is none."""
    low, high = _limit(schema, "minimum", at), _limit(schema, "maximum", at)
    above, below = _exclusive(schema, "Minimum", low, at), _exclusive(schema, "Maximum", high, at)
    least = [math.ceil(low)] if low is not None else []
    most = [math.floor(high)] if high is not None else []
    least += [math.floor(above) + 1] if above is not None else []
    most += [math.ceil(below) - 1] if below is not None else []
    smallest, largest = min(max(least, default=-FAR), FAR), max(min(most, default=FAR), -FAR)
    if smallest > largest or smallest >= FAR or largest <= -FAR:
        raise ValueError(f"{at}: no integer is between {smallest} and {largest}")
    return (smallest if smallest > -FAR else None), (largest if largest < FAR else None)


def _limit(schema: Schema, key: str, at: str) -> int | float | None:
    value = schema.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(at, key, "a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(at, key, "a number", value)
    return value


def _exclusive(schema: Schema, name: str, bound: int | float | None, at: str) -> int | float | None:
    """The number that is itself outside."""
    value = schema.get(f"exclusive{name}")
    if isinstance(value, bool):
        return bound if value else None
    return _limit(schema, f"exclusive{name}", at)

"""Durations and thresholds as people write them in stack.yaml: `90s`, `5m`, `1h30m`, `2d`, `10%`.

A bare number is refused for a duration: nobody can tell seconds from minutes by looking at it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Seconds in `text`; raises ValueError that shows what would have been right."""
    squeezed = text.strip().lower().replace(" ", "")
    if squeezed == "0":
        return 0.0
    parts = _PART.findall(squeezed)
    if not parts or "".join(number + unit for number, unit in parts) != squeezed:
        raise ValueError(f"'{text}' is not a duration; write it like 90s, 5m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The two largest units that matter: `3d 4h`, `5m 10s`, `0.25s`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    rest, parts = round(seconds), []
    for unit in ("w", "d", "h", "m", "s"):
        size = int(_UNITS[unit])
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"'{value}' is not a duration; write it like 90s, 5m, 1h30m or 2d")
    if isinstance(value, str):
        return parse_duration(value)
    if value != 0:
        raise ValueError(f"{value} has no unit; write {value}s, {value}m or {value}h")
    return 0.0


def parse_threshold(value: Any) -> Any:
    """`10%` is 0.1, `14d` is seconds, a number is itself."""
    if isinstance(value, str):
        if match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value):
            return float(match[1]) / 100
        try:
            return parse_duration(value)
        except ValueError as error:
            raise ValueError(f"'{value}' is no threshold; write it like 85, 10% or 14d") from error
    return value


Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str)]

"""Durations and thresholds as people write them in stack.yaml: `90s`, `5m`, `1h30m`, `2d`, `10%`.

A bare number is refused for a duration: nobody can tell seconds from minutes by looking at it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from stackctl.config.section import Written
from stackctl.durations import format_duration, parse_duration


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


Duration = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str | Literal[0]),
    Written("duration", lambda seconds: format_duration(seconds).replace(" ", "")),
]

__all__ = ["Duration", "format_duration", "parse_duration", "parse_threshold"]

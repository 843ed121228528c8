"""Go's duration texts (`5m`, `1h30m`, `-1s`): keep-alive times are written in them everywhere."""

from __future__ import annotations

import math
import re

FOREVER = math.inf

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER = re.compile(r"[0-9]*\.?[0-9]*")
_UNIT = re.compile(r"[^0-9.]*")


class InvalidDuration(ValueError):
    """The text is Go's own, e.g. `time: missing unit in duration "10"`."""


def parse_duration(text: str) -> float:
    """Seconds, negative when the text is."""
    rest, sign = text, 1.0
    if rest[:1] in ("+", "-"):
        sign, rest = (-1.0 if rest[0] == "-" else 1.0), rest[1:]
    if rest == "0":
        return 0.0
    if not rest:
        raise InvalidDuration(f'time: invalid duration "{text}"')
    total = 0.0
    while rest:
        match = _NUMBER.match(rest)
        digits = match.group() if match else ""
        if digits in ("", "."):
            raise InvalidDuration(f'time: invalid duration "{text}"')
        rest = rest[len(digits) :]
        unit_match = _UNIT.match(rest)
        unit = unit_match.group() if unit_match else ""
        if not unit:
            raise InvalidDuration(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise InvalidDuration(f'time: unknown unit "{unit}" in duration "{text}"')
        total += float(digits) * _UNITS[unit]
        rest = rest[len(unit) :]
    return sign * total


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)

"""A GBNF expression for the integers between two bounds, as they are written in JSON."""

from __future__ import annotations

_MOST_DIGITS = 16


def integer_between(low: int | None, high: int | None) -> str:
    """Bounds are inclusive; None is unbounded. No leading zeros, no minus zero."""
    parts = []
    if low is None or low < 0:
        # The negative side is the positive one mirrored.
        smallest = 1 if high is None or high >= 0 else -high
        parts.append(f'"-" ({_natural(smallest, None if low is None else -low)})')
    if high is None or high >= 0:
        parts.append(_natural(max(low or 0, 0), high))
    return " | ".join(f"({part})" for part in parts)


def _natural(low: int, high: int | None) -> str:
    if high is None:
        options = [*_span(low, 10 ** len(str(low)) - 1)]
        digits = len(str(low))
        if digits < _MOST_DIGITS:
            options.append(f"[1-9] [0-9]{{{digits},{_MOST_DIGITS - 1}}}")
        return " | ".join(options)
    return " | ".join(_span(low, high))


def _span(low: int, high: int) -> list[str]:
    """Cut [low, high] at powers of ten, then into runs that differ in one digit and end in free digits."""
    options: list[str] = []
    while low <= high:
        top = min(high, 10 ** len(str(low)) - 1)
        options += _same_length(str(low), str(top))
        low = top + 1
    return options


def _same_length(low: str, high: str) -> list[str]:
    if low == high:
        return [f'"{low}"']
    if low[0] == high[0]:
        return [f'"{low[0]}" ({" | ".join(_same_length(low[1:], high[1:]))})']
    rest = len(low) - 1
    if rest == 0:
        return [f"[{low}-{high}]"]
    options = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        options.append(f'"{first}" ({" | ".join(_same_length(low[1:], "9" * rest))})')
        first += 1
    if high[1:] != "9" * rest:
        end = f'"{last}" ({" | ".join(_same_length("0" * rest, high[1:]))})'
        last -= 1
    else:
        end = ""
    if first <= last:
        lead = f'"{first}"' if first == last else f"[{first}-{last}]"
        options.append(f"{lead} [0-9]{{{rest}}}")
    if end:
        options.append(end)
    return options

"""Reads Prometheus text, and does on two samples of it what a health run needs: rates and quantiles."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]


def parse(text: str) -> Samples:
    samples: Samples = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        labels = tuple(sorted(_LABEL.findall(match[2] or "")))
        samples.setdefault(match[1], {})[labels] = value
    return samples


def total(samples: Samples, name: str, **wanted: str) -> float:
    """The sum over all label sets that have `wanted`; a value that ends in * is a prefix."""
    return sum(
        value
        for labels, value in samples.get(name, {}).items()
        if all(_is(dict(labels).get(key, ""), want) for key, want in wanted.items())
    )


def _is(value: str, want: str) -> bool:
    return value.startswith(want[:-1]) if want.endswith("*") else value == want


def buckets(samples: Samples, name: str) -> dict[str, float]:
    """Cumulative counts by upper bound (as written), over all labels."""
    found: dict[str, float] = {}
    for labels, value in samples.get(f"{name}_bucket", {}).items():
        bound = dict(labels).get("le", "")
        found[bound] = found.get(bound, 0.0) + value
    return found


def since(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """The growth of each counter; a counter that fell was reset, and counts from zero."""
    reset = any(value < before.get(key, 0.0) for key, value in now.items())
    return {key: value if reset else value - before.get(key, 0.0) for key, value in now.items()}


def quantile(share: float, counts: Mapping[str, float]) -> float | None:
    """As Prometheus' histogram_quantile: linear inside the bucket; None without observations."""
    bounds = sorted((float("inf") if bound == "+Inf" else float(bound), n) for bound, n in counts.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank, low, below = share * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= rank:
            if bound == float("inf"):
                return low
            inside = count - below
            return bound if inside <= 0 else low + (bound - low) * (rank - below) / inside
        low, below = bound, count
    return low

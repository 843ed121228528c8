"""The thresholds of the checks, in one place: where stack.yaml is read they say which way round a pair is.

Nothing is imported here: the run of a kept plan and the validator both come by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackctl.health.plan import Plan

_DAY = 86400.0
# By the first word of the check's id. A pair that falls is of room, time or speed that is left.
LIMITS: dict[str, tuple[float, float]] = {
    "backup": (2 * _DAY, 7 * _DAY),
    "certificate": (14 * _DAY, 3 * _DAY),
    "disk": (0.10, 0.05),
    "errors": (0.05, 0.25),
    "generation": (0.5, 0.1),
    "gpu": (85, 92),
    "latency": (10, 60),
    "offload": (0.99, 0.01),
    "queue": (8, 64),
    "vram": (0.03, 0.01),
}


def limits(plan: Plan, check: str) -> tuple[float, float]:
    """The thresholds of a check: the stack file's, or its own."""
    override = plan.health.checks.get(check)
    return merged(check, override.warn if override else None, override.crit if override else None)


def merged(check: str, warn: float | None, crit: float | None) -> tuple[float, float]:
    usual = LIMITS[check.partition(".")[0]]
    return usual[0] if warn is None else warn, usual[1] if crit is None else crit


def wrong(check: str, warn: float | None, crit: float | None) -> str | None:
    """Why this pair is refused: turned round, the worse is never seen."""
    usual = LIMITS.get(check.partition(".")[0])
    if usual is None or (warn is None and crit is None):
        return None
    first, second = merged(check, warn, crit)
    falls = usual[0] > usual[1]
    if first == second or (first > second) is falls:
        return None
    return f"warn ({first:g}) must {'not be below' if falls else 'not be above'} crit ({second:g})"

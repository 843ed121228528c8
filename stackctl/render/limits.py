"""How much memory a service may use: every one has a limit, unless the stack file says that it has none.

The limit that is not written leaves the host a reserve, so that an engine that takes too much is killed, and
not the host's own services. It moves in steps: a new kernel that reports a few megabytes less is no reason to
recreate a container.
"""

from __future__ import annotations

from stackctl.config.service import Limits

STEP = 512 << 20
SMALLEST_RESERVE = 2 << 30


def memory_limit(limits: Limits, host: int) -> int | None:
    return most_of(host) if limits.memory is None else limits.memory or None


def most_of(host: int) -> int:
    """The host's memory less the reserve; on a small host half of it, because less would run nothing."""
    left = max(host - max(host // 10, SMALLEST_RESERVE), host // 2)
    return max(left // STEP * STEP, STEP)

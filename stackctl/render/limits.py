"""How much memory a service may use: every one has a limit, unless the stack file says that it has none.

The limits that are not written leave the host a reserve, also together and beside the written ones, so that
an engine that takes too much is killed, and not the host's own services. They move in steps: a new kernel
that reports a few megabytes less is no reason to recreate a container.
"""

from __future__ import annotations

from stackctl.config import StackConfig

STEP = 512 << 20
SMALLEST_RESERVE = 2 << 30


def memory_limits(config: StackConfig, host: int) -> dict[str, int | None]:
    """By service; None where the stack file says that there is none.

    Those without a limit of their own share what is left in equal parts: nobody knows here which of them
    needs more. Small neighbours with limits that they seldom reach never take more than half of it.
    """
    asked = {name: service.limits.memory for name, service in config.services.enabled().items()}
    sharing = [name for name, limit in asked.items() if limit is None]
    written = sum(limit for limit in asked.values() if limit)
    whole = most_of(host)
    share = max(whole - written, whole // 2) // max(len(sharing), 1)
    return {
        name: max(share // STEP * STEP, STEP) if limit is None else limit or None
        for name, limit in asked.items()
    }


def most_of(host: int) -> int:
    """The host's memory less the reserve; on a small host half of it, because less would run nothing."""
    return max(host - max(host // 10, SMALLEST_RESERVE), host // 2)

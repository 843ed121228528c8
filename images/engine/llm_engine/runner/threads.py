"""How many threads compute where nobody said how many: the server wants to know as well as the runner."""

from __future__ import annotations

import os

import psutil


def default_threads() -> int:
    """Physical cores: a second thread per core slows matrix work down. Limits of the container count."""
    allowed = len(os.sched_getaffinity(0))
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed, physical))

"""How much main memory can still be taken: the machine's, or what the limits of this container or service
leave.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def available_ram() -> int:
    """Bytes that can be taken without swapping, within every limit above this process."""
    room = int(psutil.virtual_memory().available)
    for group in _groups():
        inside = _room_in(group)
        if inside is not None:
            room = min(room, inside)
    return max(room, 0)


def _groups() -> Iterator[Path]:
    """The control groups of this process, from its own up to the root that it can see."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    at = CGROUPS / own.strip("/")
    while at != CGROUPS and CGROUPS in at.parents:
        yield at
        at = at.parent
    yield CGROUPS


def _room_in(group: Path) -> int | None:
    """What a group's limit leaves; None where it sets none."""
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # File pages are given back under pressure; a mapped model counts as such.
    return int(limit) - used + int(stat.get("file", 0)) - int(stat.get("shmem", 0))


def trim_heap() -> None:
    """Give freed memory back to the system; the allocator would keep it for itself."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

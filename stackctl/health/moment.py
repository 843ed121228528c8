"""A point in time that survives a wrong clock.

Cron starts a new process each time, so elapsed time must be worked out from what the last one wrote down.
The wall clock may have been set in between (NTP after boot, a flat battery); the kernel's time since boot
not. So a moment holds both, and elapsed time comes from the boot clock within one boot, from the wall clock
across boots, and is None when the wall clock ran backwards across a boot.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    wall: float
    uptime: float
    boot: str

    @classmethod
    def now(cls) -> Moment:
        try:
            boot = _BOOT_ID.read_text().strip()
        except OSError:
            boot = "unknown"
        return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot)

    def since(self, earlier: Moment) -> float | None:
        """Seconds from `earlier` to here, or None when nobody can tell."""
        if self.boot == earlier.boot and self.uptime >= earlier.uptime:
            return self.uptime - earlier.uptime
        elapsed = self.wall - earlier.wall
        return elapsed if elapsed >= 0 else None

    def drift(self, earlier: Moment) -> float:
        """How far the wall clock was set since `earlier`; 0 across boots, where it cannot be told."""
        if self.boot != earlier.boot or self.uptime < earlier.uptime:
            return 0.0
        return (self.wall - earlier.wall) - (self.uptime - earlier.uptime)

    def plus(self, seconds: float) -> Moment:
        return Moment(self.wall + seconds, self.uptime + seconds, self.boot)

    def dump(self) -> dict[str, Any]:
        return {"wall": round(self.wall, 3), "uptime": round(self.uptime, 3), "boot": self.boot}

    @classmethod
    def load(cls, data: dict[str, Any]) -> Moment:
        return cls(float(data["wall"]), float(data["uptime"]), str(data["boot"]))


def iso(wall: float) -> str:
    """Local time with its offset: what a person on this host reads."""
    whole = time.localtime(wall)
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", whole)

"""Is the clock right? Certificates, keep-alive, log times and backups all lie when it is not."""

from __future__ import annotations

import ctypes
import os

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, ok

_UNSYNCHRONISED = 0x0040
_JUMP = 5.0
_SYSTEMD = "/run/systemd/system"


class _Timex(ctypes.Structure):
    """The head of the kernel's struct timex; the rest is room for it to write into."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id="clock",
            title="The clock is right",
            looks_at="the kernel's synchronisation flag (adjtimex), and jumps since the last look",
            why="with a wrong clock certificates fail, timers misfire and logs mislead",
            do="timedatectl status; systemctl enable --now systemd-timesyncd",
            run=_look,
            interval=300,
            during_operations=False,
        )
    ]


def _look(look: Look) -> Result:
    jump = look.now.drift(look.last) if look.last else 0.0
    if abs(jump) > _JUMP:
        way = "forward" if jump > 0 else "back"
        return Result(Status.WARNING, f"the clock was set {way} by {abs(jump):.0f} s since the last look")
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return ok(f"not known whether it is synchronised: {os.strerror(ctypes.get_errno())}")
    if timex.status & _UNSYNCHRONISED:
        if not os.path.isdir(_SYSTEMD):
            # A container or guest without a service manager: its clock is set from outside.
            return ok("not synchronised from within this machine")
        return Result(Status.WARNING, "not synchronised with any time server")
    error = timex.maxerror / 1e6
    return ok(f"synchronised within {error:.3f} s", metrics=(Metric("max_error", error, "s"),))

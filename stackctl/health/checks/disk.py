"""Is there room on the disks of the stack, in bytes and in inodes, and for how long at the present growth?"""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

from stackctl.health.check import Check, Look
from stackctl.health.limits import limits
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, unknown
from stackctl.health.moment import Moment

_HOUR = 3600.0
_MIB = 1 << 20
_SAMPLES = 72
_SPAN = 6 * _HOUR
_WARN_DAYS, _CRIT_DAYS = 7.0, 1.0


def checks(scene: Scene) -> list[Check]:
    plan = scene.plan
    paths = dict.fromkeys([plan.data_path, str(plan.state_path), *plan.health.disks])
    found: list[Check] = []
    devices: set[int] = set()
    for path in paths:
        device = _device(path)
        # The state folder usually lies on the disk of the data: one message for one disk.
        if device is not None and device in devices and path not in plan.health.disks:
            continue
        if device is not None:
            devices.add(device)
        name = "disk" if path == plan.data_path else f"disk.{path}"
        procedure = _procedure(scene, path, name)
        found.append(
            Check(
                id=name,
                title=f"Room on the disk of {path}",
                looks_at=f"free bytes, free inodes and growth of the file system that holds {path}",
                why="a full disk corrupts a pull, stops the web UI's database and every log",
                do=f"stackctl run {procedure}; stackctl models rm NAME",
                run=partial(_look, scene, path, name),
                thresholds="warn, crit: free share (10%, 5%); full within 7 days warns, within 1 is critical",
                remedy=procedure if name == "disk" else None,
                during_operations=False,
            )
        )
    return found


def _procedure(scene: Scene, path: str, name: str) -> str:
    """With the room that makes this check well: what is plenty on a small disk is nothing on a large one."""
    try:
        room = os.statvfs(path)
    except OSError:
        return "disk-full"
    warn, _ = limits(scene.plan, name)
    return f"disk-full -i room={math.ceil(warn * room.f_blocks * room.f_frsize / _MIB)}m"


def _device(path: str) -> int | None:
    for folder in (Path(path), *Path(path).parents):
        try:
            return folder.stat().st_dev
        except OSError:
            continue
    return None


def _look(scene: Scene, path: str, name: str, look: Look) -> Result:
    mount = scene.plan.data_mount
    if mount and path == scene.plan.data_path and not os.path.ismount(mount):
        return Result(Status.CRITICAL, f"{mount} is not mounted")
    try:
        room = os.statvfs(path)
    except FileNotFoundError:
        return Result(Status.CRITICAL, f"{path} does not exist")
    except OSError as error:
        return unknown(f"{path}: {error.strerror}")
    warn, crit = limits(scene.plan, name)
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    shares = {"free": free / size if size else 1.0}
    if room.f_files:
        shares["inodes free"] = room.f_favail / room.f_files
    samples = _remember(look.memory.get("samples", []), look.now, size - free)
    days = days_left(samples, free)
    low = {what: share for what, share in shares.items() if share < warn}
    status = Status.CRITICAL if any(share < crit for share in low.values()) else Status.WARNING
    status = status if low else Status.OK
    text = ", ".join(f"{share:.0%} {what}" for what, share in (low or {"free": shares["free"]}).items())
    if days is not None and days < _WARN_DAYS:
        status = max(status, Status.CRITICAL if days < _CRIT_DAYS else Status.WARNING)
        text += f", full in {days:.1f} days at the present growth"
    metrics = (
        Metric("free", free, "B", warn * size, crit * size, 0, size),
        Metric("inodes_free", round(100 * shares.get("inodes free", 1.0), 2), "%"),
    )
    return Result(status, text, metrics=metrics, memory={"samples": samples})


def _remember(samples: list[Any], now: Moment, used: int) -> list[Any]:
    """At most one sample an hour, for three days; a sample from an unknowable time is dropped."""
    kept = [sample for sample in samples if now.since(Moment.load(sample[0])) is not None]
    newest = now.since(Moment.load(kept[-1][0])) if kept else None
    if newest is None or newest >= _HOUR:
        kept.append([now.dump(), used])
    return kept[-_SAMPLES:]


def days_left(samples: list[Any], free: float) -> float | None:
    """By the straight line from the oldest to the newest sample; None when there is no lasting growth."""
    if len(samples) < 2:
        return None
    (first, before), (last, after) = samples[0], samples[-1]
    span = Moment.load(last).since(Moment.load(first))
    if span is None or span < _SPAN or after <= before:
        return None
    return float(free / ((after - before) / span) / 86400)

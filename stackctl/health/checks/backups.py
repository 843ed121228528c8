"""Is there a fresh backup, is it whole, and is it where it should be?

Each new backup is read and verified once, as long as it is small: data that is authoritative usually is.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from functools import partial
from pathlib import Path

from stackctl.durations import format_duration
from stackctl.health.check import Check, Look
from stackctl.health.limits import limits
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, skipped

_DAY = 86400.0
_LARGEST = 256 << 20


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id="backup",
            title="There is a fresh, whole backup",
            looks_at="age and seal of the newest backup, and its copies in the folders of backup.to",
            why="a backup that stopped months ago, or cannot be read, is found on the day it is needed",
            do="stackctl backup create; stackctl run restore-drill proves that it can be restored",
            run=partial(_look, scene),
            timeout=30,
            interval=3600,
            thresholds="warn, crit: age (2d, 7d)",
            during_operations=False,
        )
    ]


def _look(scene: Scene, look: Look) -> Result:
    plan = scene.plan
    there = backups(plan.state_path / "backups", plan.stack)
    if not there:
        if plan.backup_folders or plan.backup_elsewhere:
            return Result(Status.CRITICAL, "backup.to is set, but no backup was ever made")
        return skipped("no backup was made, and backup.to asks for none")
    made, newest = there[-1]
    age = look.now.wall - made
    warn, crit = limits(plan, "backup")
    metrics = (Metric("age", round(age), "s", warn, crit), Metric("size", newest.stat().st_size, "B"))
    damage = None if look.memory.get("verified") == newest.name else _damage(newest)
    if damage:
        return Result(Status.CRITICAL, damage, metrics=metrics)
    missing = [folder for folder in plan.backup_folders if not _copied(newest, Path(folder))]
    status = Status.CRITICAL if age >= crit else Status.WARNING if age >= warn or missing else Status.OK
    text = f"{newest.name} is {format_duration(max(0.0, age))} old"
    text += f", not in {', '.join(missing)}" if missing else ""
    return Result(status, text, metrics=metrics, memory={"verified": newest.name})


def backups(folder: Path, stack: str) -> list[tuple[float, Path]]:
    """(when, file) of each backup, oldest first, by the time in the name: copies lose their own."""
    form = re.compile(rf"{re.escape(stack)}-(\d{{8}}T\d{{6}})Z\.backup")
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            if match := form.fullmatch(path.name):
                found.append((float(timegm(time.strptime(match[1], "%Y%m%dT%H%M%S"))), path))
    return sorted(found)


def _damage(path: Path) -> str | None:
    if path.stat().st_size > _LARGEST:
        return None
    from stackctl.backup.archive import verify
    from stackctl.errors import StackctlError

    try:
        verify(path)
    except StackctlError as error:
        return error.what
    return None


def _copied(newest: Path, folder: Path) -> bool:
    try:
        return (folder / newest.name).stat().st_size == newest.stat().st_size
    except OSError:
        return False

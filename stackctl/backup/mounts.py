"""A place for backups that is a disk of its own is written to only while that disk is there.

A folder below a mount point exists without its disk, too: backups then fill the root disk, and are gone from
sight once the disk is mounted over them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from stackctl.config.backup import BackupTarget
from stackctl.errors import PreflightError

FSTAB = Path("/etc/fstab")
FILE = "backup-places.json"


def refuse_unmounted(place: BackupTarget, state: Path) -> None:
    """By `mount:` of the stack file, by what the host's fstab says, by where it was the last time."""
    folder = folder_of(place)
    if folder is None:
        return
    if place.mount is not None:
        _refuse_unless_mounted(folder, place.mount, "mount: of the stack file says so")
        return
    above = {folder, *folder.parents}
    for wanted in _listed():
        if wanted in above:
            _refuse_unless_mounted(folder, wanted, f"{FSTAB} says so")
    before = _remembered(state).get(str(folder))
    if before is not None and Path(before) in above:
        _refuse_unless_mounted(folder, Path(before), "it was so the last time")


def remember(place: BackupTarget, state: Path) -> None:
    folder = folder_of(place)
    if folder is None or not folder.exists():
        return
    known = _remembered(state)
    if known.get(str(folder)) != str(mount_point(folder)):
        aside = state / f".{FILE}.new"
        aside.write_text(json.dumps({**known, str(folder): str(mount_point(folder))}, indent=1) + "\n")
        aside.replace(state / FILE)


def folder_of(place: BackupTarget) -> Path | None:
    """On this host; a restic repository may be a folder, too."""
    if place.path is not None:
        return Path(place.path).absolute()
    return Path(place.restic) if place.restic is not None and place.restic.startswith("/") else None


def mount_point(folder: Path) -> Path:
    here = folder.resolve()
    while not os.path.ismount(here):
        here = here.parent
    return here


def _refuse_unless_mounted(folder: Path, point: Path, why: str) -> None:
    if not os.path.ismount(point):
        raise PreflightError(
            f"{folder} is on the disk of {point} ({why}), and nothing is mounted there", fix=f"mount {point}"
        )


def _listed() -> list[Path]:
    """Mount points of the fstab; a space in a name is written as \\040."""
    try:
        lines = FSTAB.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    points = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), one[1]) for one in fields if len(one) > 1]
    return [Path(point) for point in points if point.startswith("/") and point != "/"]


def _remembered(state: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((state / FILE).read_text())
        if isinstance(found, dict):
            return found
    return {}

"""Room is looked for on every disk, and what shares a disk shares its room."""

import shutil
from pathlib import Path

import pytest

from stackctl.errors import PreflightError
from stackctl.operations import room
from stackctl.operations.room import Need


def test_needs_on_one_disk_are_added_up(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    needs = [
        Need(tmp_path / "not" / "there", free * 2 // 3, "images"),
        Need(tmp_path, free * 2 // 3, "copies"),
    ]
    [disk] = room.disks(needs)
    assert disk.path == tmp_path and disk.wanted > disk.free
    with pytest.raises(PreflightError, match=r"images .*, copies .*") as caught:
        room.refuse_unless_fits(needs, fix="stackctl run disk-full")
    assert caught.value.fix == "stackctl run disk-full"
    assert "free" in room.refuse_unless_fits(needs[:1], fix="")


def test_every_disk_counts(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with pytest.raises(PreflightError, match="/dev/shm"):
        room.refuse_unless_fits([Need(tmp_path, 1, "a"), Need(other / "x", 1 << 60, "b")], fix="")

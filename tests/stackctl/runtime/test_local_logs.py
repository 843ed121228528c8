"""A service's log on a disk that fills up: lines are lost, that is said, and it goes on; and it
stays bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.runtime.local.logs import FILES, RotatingLog

# The kernel refuses to let a file grow beyond this limit as it refuses it on a full disk: by a short write,
# then by an error.
FULL = """
import resource, sys
from pathlib import Path
from stackctl.runtime.local.logs import RotatingLog
log = RotatingLog(Path(sys.argv[1]))
log.write("before")
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), most))
for number in range(3):
    log.write("lost %d" % number)
assert log.dropped == 3, log.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.write("after")
log.write("and on")
"""


def texts(path: Path) -> list[str]:
    return [line.partition(" ")[2] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("room", [33, 40])  # nothing more fits; half a line fits
def test_a_full_disk_drops_lines_says_so_and_goes_on(tmp_path: Path, room: int) -> None:
    path = tmp_path / "a.log"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = texts(path)
    assert (lines[0], lines[2:]) == ("before", ["after", "and on"])
    assert lines[1].startswith("stackctl: 3 lines were dropped here: ")


def test_a_device_without_room(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.symlink_to("/dev/full")
    log = RotatingLog(path)
    log.write("one")
    log.close()
    path.unlink()
    log.write("two")
    assert texts(path) == ["stackctl: 1 lines were dropped here: No space left on device", "two"]


def test_the_log_stays_within_its_bound(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", size=1000)
    for number in range(500):
        log.write(f"{number:060}")
    files = list(tmp_path.iterdir())
    assert len(files) == FILES and sum(file.stat().st_size for file in files) < FILES * 1200
    assert texts(tmp_path / "a.log.1")[-1] == f"{500 - 1 - len(texts(tmp_path / 'a.log')):060}"


def test_also_where_nothing_can_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "a.log.4").mkdir()  # what a rename cannot replace
    (tmp_path / "a.log.3").write_text("x")
    log = RotatingLog(tmp_path / "a.log", size=1000)
    for number in range(500):
        log.write(f"{number:060}")
    assert (tmp_path / "a.log").stat().st_size < 1200 and log.dropped == 0

"""The releases of stackctl on a host that bootstrap has prepared, and which of them may go.

    ~/.local/share/stackctl/.releases/1, 2, …  each complete in itself, never changed once it is made
    ~/.local/share/stackctl/current            a link to the one that new commands take, switched in one step

A command that runs goes on loading code from the release it was started with, for hours perhaps, so a
release stays for as long as a process uses it. The one before the current stays in any case: a command may
have been about to start.

`python -m stackctl.hosts.releases FOLDER` removes the rest; bootstrap calls it with the new release's Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from stackctl.paths import RELEASES

#: Lies in a release that was made to its end.
READY = "ready"
#: An unfinished one may still be in the making.
UNFINISHED_FOR = 3600.0
_PROC = Path("/proc")


def prune(base: Path) -> list[Path]:
    """Remove what nobody needs; what was removed."""
    releases = sorted(
        (path for path in (base / RELEASES).iterdir() if path.name.isdigit()),
        key=lambda path: int(path.name),
    )
    current = (base / "current").resolve()
    before = [path for path in releases if int(path.name) < int(current.name) and (path / READY).exists()]
    kept = {current, *(path.resolve() for path in before[-1:])}
    candidates = [path for path in releases if path.resolve() not in kept and not _in_the_making(path)]
    used = in_use(candidates)
    removed = [path for path in candidates if path not in used]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return removed


def _in_the_making(release: Path) -> bool:
    if (release / READY).exists():
        return False
    try:
        return time.time() - release.stat().st_mtime < UNFINISHED_FOR
    except OSError:
        return False


def in_use(releases: Iterable[Path]) -> set[Path]:
    """Those that a process was started from, or has files of in its memory."""
    waiting = set(releases)
    found: set[Path] = set()
    for text in _processes():
        found |= {path for path in waiting if f"{path}/".encode() in text}
        waiting -= found
        if not waiting:
            break
    return found


def _processes() -> Iterable[bytes]:
    if not (_PROC / "self" / "cmdline").exists():
        yield subprocess.run(["ps", "-axww", "-o", "args"], capture_output=True, check=True).stdout
        return
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            for name in ("cmdline", "maps"):
                try:
                    yield (folder / name).read_bytes()
                except OSError:
                    continue  # it has ended, or its memory is another user's


if __name__ == "__main__":
    prune(Path(sys.argv[1]))

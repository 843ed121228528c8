"""A little room that runs keep for themselves, to be given up when the disk is full.

A full disk must not be what keeps a run from going back: the journal of the way back, and the few small files
that an undo writes, fit into what is freed here. It also lets a run that makes room begin on a full disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SIZE = 1 << 20
FILE = ".ballast"
# Where less than this is free it is left to those that need it.
WORTH_KEEPING = 16 * SIZE
T = TypeVar("T")


def keep(runs: Path) -> None:
    """Where there is room for it; that there is none is found out, and told, by those that write."""
    path = runs / FILE
    with contextlib.suppress(OSError):
        if path.exists() or shutil.disk_usage(runs).free < WORTH_KEEPING:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        except OSError:
            path.unlink()
        finally:
            os.close(descriptor)


def give_up(runs: Path) -> bool:
    """Whether there was some."""
    try:
        (runs / FILE).unlink()
    except OSError:
        return False
    return True


def written(runs: Path, write: Callable[[], T]) -> T:
    """What `write` returns; when it fails for want of room it is tried again with what was kept."""
    try:
        return write()
    except OSError:
        if not give_up(runs):
            raise
        return write()

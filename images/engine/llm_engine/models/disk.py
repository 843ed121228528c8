"""What every write to the store needs: full disks told apart, and renames that survive a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from llm_engine.models.errors import StoreFull


@contextlib.contextmanager
def store_full(where: Path, needed: int | None = None) -> Iterator[None]:
    """Turns `no space left` and `quota exceeded` into StoreFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(str(where), needed) from error
        raise


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

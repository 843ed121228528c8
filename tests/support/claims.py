"""Numbers that one test process has for its life and no other takes meanwhile: ports, networks.

A lock on a byte of a shared file, which the kernel frees however the process ends.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

_files: dict[str, int] = {}
_claimed: set[tuple[str, int]] = set()


def claim(kind: str, number: int) -> bool:
    """False when this process or another has it."""
    if kind not in _files:
        path = Path(tempfile.gettempdir()) / f"stackctl-test-{kind}-{os.getuid()}"
        _files[kind] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if (kind, number) in _claimed:
        return False
    try:
        fcntl.lockf(_files[kind], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except OSError:
        return False
    _claimed.add((kind, number))
    return True

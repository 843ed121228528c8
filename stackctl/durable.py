"""What is said to be written is on the disk: not in a cache that a power cut takes away."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def sync(paths: Iterable[Path]) -> None:
    """Files and folders, each to the disk; a link is part of its folder."""
    for path in paths:
        if path.is_symlink():
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Everything in it, then its own name in the folder above."""
    sync([*folder.rglob("*"), folder, folder.parent])


def write(path: Path, text: str) -> None:
    """Whole or not at all: whoever reads it finds the old text or the new one."""
    aside = path.with_name(f".{path.name}.new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)

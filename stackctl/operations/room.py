"""Is there room for what is about to be written, on every disk that it goes to? Asked before it is written.

Needs that fall on one file system are added up: images, snapshots and data often share a disk, and each for
itself would fit.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stackctl.config.section import format_size
from stackctl.errors import PreflightError
from stackctl.operations.context import Stack
from stackctl.runtime.command import run


@dataclass(frozen=True)
class Need:
    path: Path
    size: int
    what: str


@dataclass(frozen=True)
class Disk:
    path: Path
    free: int
    needs: tuple[Need, ...]

    @property
    def wanted(self) -> int:
        return sum(need.size for need in self.needs)

    def __str__(self) -> str:
        what = ", ".join(f"{need.what} {format_size(need.size)}" for need in self.needs)
        return f"{format_size(self.free)} free under {self.path}, {format_size(self.wanted)} wanted ({what})"


def existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def disks(needs: Iterable[Need]) -> list[Disk]:
    grouped: dict[int, list[Need]] = {}
    for need in needs:
        grouped.setdefault(existing(need.path).stat().st_dev, []).append(need)
    return [
        Disk(there := existing(group[0].path), shutil.disk_usage(there).free, tuple(group))
        for group in grouped.values()
    ]


def refuse_unless_fits(needs: Iterable[Need], *, fix: str) -> str:
    found = disks(needs)
    short = [disk for disk in found if disk.free < disk.wanted]
    if short:
        raise PreflightError("; ".join(map(str, short)), fix=fix)
    return "; ".join(map(str, found))


def docker_folder(stack: Stack) -> Path | None:
    """Where the engine keeps images and volumes; None when there is none, or it is not on this host."""
    if stack.choice.name != "docker":
        return None
    asked = run(["docker", "info", "--format", "{{.DockerRootDir}}"], timeout=60)
    folder = Path(asked.stdout.strip())
    return folder if folder.is_absolute() and folder.exists() else None


def of_stack(stack: Stack) -> list[Path]:
    """The folders that grow while the stack is used: data, state, and the images of its engine."""
    folders = [stack.config.data_path, stack.config.state_path]
    images = docker_folder(stack)
    return folders if images is None else [*folders, images]

"""A copy of the authoritative data on this host, taken before an upgrade, so that going back has its data.

A snapshot appears whole or not at all. Restoring moves what is there aside first: nothing is ever
overwritten.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stackctl.backup import copying, sources
from stackctl.config import StackConfig
from stackctl.errors import StackctlError


@dataclass(frozen=True)
class Snapshot:
    path: Path

    @property
    def services(self) -> list[str]:
        found: list[str] = json.loads((self.path / "snapshot.json").read_text())["services"]
        return found

    @property
    def name(self) -> str:
        return self.path.name


def root(config: StackConfig) -> Path:
    return config.state_path / "snapshots"


def size(config: StackConfig) -> int:
    return sum(path.stat().st_size for source in sources.of(config) for path, _ in copying.files(source))


def find(config: StackConfig, name: str) -> Snapshot | None:
    path = root(config) / name
    return Snapshot(path) if not name.startswith(".") and (path / "snapshot.json").exists() else None


def take(config: StackConfig, name: str) -> Snapshot:
    target, draft = root(config) / name, root(config) / f".{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    found = sources.of(config)
    for source in found:
        _copy(source, draft / source.service)
    about = {
        "schema": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "services": [s.service for s in found],
    }
    (draft / "snapshot.json").write_text(json.dumps(about) + "\n")
    _remove(target)
    os.replace(draft, target)
    return Snapshot(target)


def _copy(source: sources.Source, target: Path) -> None:
    folders = list(copying.folders(source))
    for _, relative in folders:
        (target / relative).mkdir()
    for path, relative in copying.files(source):
        try:
            copying.copy_file(path, target / relative)
        except FileNotFoundError:
            continue  # a temporary file of a running service, gone since it was listed
    for path, relative in copying.links(source):
        with contextlib.suppress(FileNotFoundError):
            (target / relative).symlink_to(os.readlink(path))
            copying.own_as(path, target / relative)
    for path, relative in reversed(folders):
        with contextlib.suppress(FileNotFoundError):
            shutil.copystat(path, target / relative)
            copying.own_as(path, target / relative)


def migrated(config: StackConfig, snapshot: Snapshot) -> list[str]:
    """Services whose databases do not have the snapshot's shape any more."""
    changed = []
    for service in snapshot.services:
        copies = [
            path
            for path in (snapshot.path / service).rglob("*")
            if path.is_file() and not path.is_symlink() and copying.is_database(path)
        ]
        for copy in copies:
            live = config.data_path / service / copy.relative_to(snapshot.path / service)
            if copying.schema(live) != copying.schema(copy):
                changed.append(service)
                break
    return changed


def restore(
    config: StackConfig,
    snapshot: Snapshot,
    services: Sequence[str],
    note: Callable[[str, Path], None] = lambda _service, _aside: None,
) -> list[Path]:
    """Put the snapshot's data of these (stopped) services back; returns where what was there went.

    `note` hears of each move before it happens, so that it can be taken back after a crash, too.
    """
    moved = []
    for service in services:
        copy, live = snapshot.path / service, config.data_path / service
        if not copy.is_dir():
            raise StackctlError(f"snapshot {snapshot.name} has no data of {service}")
        draft = live.with_name(f".{service}.restoring")
        shutil.rmtree(draft, ignore_errors=True)
        _copy_tree(copy, draft)
        # Two renames; a crash between them leaves no live folder, and the next try goes on from here.
        if live.exists():
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            aside = live.with_name(f"{service}.replaced-{stamp}")
            note(service, aside)
            os.replace(live, aside)
            moved.append(aside)
        os.replace(draft, live)
    return moved


def take_back(config: StackConfig, service: str, aside: Path) -> bool:
    """Undo one move of `restore` (service stopped); False when it had not happened, or is undone already."""
    if not aside.is_dir():
        return False
    live = config.data_path / service
    if live.exists():
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        os.replace(live, live.with_name(f"{service}.replaced-{stamp}"))
    os.replace(aside, live)
    return True


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)
    for path in (source, *source.rglob("*")):
        copying.own_as(path, target / path.relative_to(source))


def prune(config: StackConfig, keep: set[str]) -> None:
    folder = root(config)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in keep:
            _remove(path)


def _remove(path: Path) -> None:
    """Out of sight in one step: a removal that is cut off never leaves half a snapshot to be found."""
    gone = path.with_name(f".{path.name.lstrip('.')}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)

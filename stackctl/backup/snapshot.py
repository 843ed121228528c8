"""A copy of the authoritative data on this host, taken before an upgrade, so that going back has its data.

A snapshot appears whole or not at all. Restoring moves what is there aside first: nothing is ever
overwritten.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import durable
from stackctl.backup import copying, sources
from stackctl.config import StackConfig
from stackctl.errors import StackctlError

COUNTS, BEGAN = "counts", "began"


@dataclass(frozen=True)
class Snapshot:
    path: Path

    @property
    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "snapshot.json").read_text())
        return found

    @property
    def services(self) -> list[str]:
        return list(self.about["services"])

    @property
    def leaving(self) -> int | None:
        """The generation whose data it is."""
        found: int | None = self.about.get("leaving")
        return found

    @property
    def counts(self) -> bool:
        """Whether the version that it was taken for has stayed."""
        return (self.path / COUNTS).exists()

    @property
    def name(self) -> str:
        return self.path.name


def root(config: StackConfig) -> Path:
    return config.state_path / "snapshots"


def size(config: StackConfig) -> int:
    return sum(path.stat().st_size for source in sources.of(config) for path, _ in copying.files(source))


def find(config: StackConfig, name: str) -> Snapshot | None:
    path = root(config) / name
    hidden = not name or name.startswith(".")
    return Snapshot(path) if not hidden and (path / "snapshot.json").exists() else None


def take(
    config: StackConfig, name: str, *, leaving: int | None = None, copied: Path | None = None
) -> Snapshot:
    """Whole and on the disk, or not there. Of what was `copied` ahead the unchanged files are used."""
    target, draft = root(config) / name, root(config) / f".{name}.draft"
    try:
        found = _copy_all(config, draft, copied)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # a full disk is not to stay full of it
        raise
    about = {
        "schema": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "leaving": leaving,
        "services": [source.service for source in found],
    }
    (draft / "snapshot.json").write_text(json.dumps(about) + "\n")
    durable.sync_tree(draft)
    _remove(target)
    os.replace(draft, target)
    durable.sync([target.parent])
    if copied is not None:
        _remove(copied)
    return Snapshot(target)


def copy_ahead(config: StackConfig, name: str) -> Path:
    """Most of the work of `take`, done while the services write; on its own it is no snapshot."""
    ahead = root(config) / f".{name}.ahead"
    began = time.time_ns()
    try:
        _copy_all(config, ahead, None)
    except BaseException:
        shutil.rmtree(ahead, ignore_errors=True)
        raise
    (ahead / BEGAN).write_text(str(began))
    durable.sync_tree(ahead)
    return ahead


def ahead_of(config: StackConfig, name: str) -> Path | None:
    ahead = root(config) / f".{name}.ahead"
    return ahead if (ahead / BEGAN).is_file() else None


def _copy_all(config: StackConfig, draft: Path, copied: Path | None) -> list[sources.Source]:
    began = int((copied / BEGAN).read_text()) if copied is not None else 0
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    found = sources.of(config)
    for source in found:
        _copy(source, draft / source.service, copied / source.service if copied else None, began)
    return found


def _copy(source: sources.Source, target: Path, copied: Path | None, began: int) -> None:
    folders = list(copying.folders(source))
    for _, relative in folders:
        (target / relative).mkdir()
    for path, relative in copying.files(source):
        try:
            earlier = copied / relative if copied is not None else None
            if earlier is not None and _same(path, earlier, began):
                os.link(earlier, target / relative)
            else:
                copying.copy_file(path, target / relative, vital=relative in source.vital)
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


def _same(path: Path, earlier: Path, began: int) -> bool:
    """Not written to since it was copied. One that was written shortly before may have been written again
    within the same tick of the clock, and a database changes in its side files first: both are copied."""
    if not earlier.is_file() or earlier.is_symlink() or copying.is_database(path):
        return False
    now, then = path.stat(), earlier.stat()
    facts = [(one.st_size, one.st_mtime_ns, one.st_mode) for one in (now, then)]
    return facts[0] == facts[1] and now.st_mtime_ns < began - 2 * 10**9


def count_in(config: StackConfig, name: str) -> None:
    """The version that it was taken for stays: from now on it is what a rollback goes back to."""
    found = find(config, name)
    if found is not None:
        (found.path / COUNTS).touch()
        durable.sync([found.path])


def of_generation(config: StackConfig, leaving: int, newer: Sequence[int]) -> Snapshot | None:
    """The data of a generation as it was when a version that stayed took its place, the last time.

    `newer`: the later generations, for copies of an older stackctl, which do not say whose data they hold.
    """
    folder = root(config)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    known = [found for name in names if (found := find(config, name)) is not None]
    ours = [one for one in known if one.leaving == leaving and one.counts]
    if ours:
        return max(ours, key=lambda one: (str(one.about["at"]), one.name))
    unsigned = {one.name: one for one in known if "leaving" not in one.about}
    return next((unsigned[name] for number in newer if (name := f"before-{number}") in unsigned), None)


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
        try:
            _copy_tree(copy, draft)
            durable.sync_tree(draft)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk is not to stay full with half a copy
            raise
        # Two renames; a crash between them leaves no live folder, and the next try goes on from here.
        if live.exists():
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            aside = live.with_name(f"{service}.replaced-{stamp}")
            note(service, aside)
            os.replace(live, aside)
            moved.append(aside)
        os.replace(draft, live)
        durable.sync([live.parent])
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


def prune(config: StackConfig, generations: Sequence[int]) -> None:
    """Remove what going back to none of these generations needs."""
    keep = {f"before-{number}" for number in generations}
    for number in generations:
        found = of_generation(config, number, [later for later in generations if later > number])
        if found is not None:
            keep.add(found.name)
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

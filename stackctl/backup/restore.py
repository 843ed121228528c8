"""From a backup file to a stack: on an empty host, or beside one as a drill. Nothing is overwritten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from stackctl import durable
from stackctl.backup import age, archive
from stackctl.backup.create import SECRETS
from stackctl.config import Loaded, load_with_origins
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations import room
from stackctl.operations.context import open_stack
from stackctl.operations.room import Need
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.lock import stack_lock
from stackctl.runtime.secrets import SecretStore


@dataclass(frozen=True)
class Restored:
    loaded: Loaded
    files: int
    secrets: tuple[str, ...]
    models: tuple[str, ...]
    aside: tuple[Path, ...]


def restore(
    backup: Path,
    folder: Path,
    *,
    passphrase: str | None = None,
    identities: Sequence[str] = (),
    as_name: str | None = None,
    changes: dict[str, Any] | None = None,
    secrets: bool = True,
) -> Restored:
    """The whole file is verified before anything is written. `as_name` makes a scratch copy beside the
    original; without `secrets` it gets new ones.
    """
    manifest = archive.verify(backup)
    opened = _open_secrets(backup, manifest, passphrase, identities) if secrets else {}
    name = as_name or str(manifest["stack"])
    with stack_lock(name):
        _refuse_while_in_force(name)
        _config(backup, manifest, folder, as_name, changes or {})
        loaded = load_with_origins(str(folder / manifest["stack_file"]), manifest.get("overlay"))
        _refuse_while_running(loaded)
        room.refuse_unless_fits(_needs(manifest, loaded), fix="make room, or set data_dir in the stack file")
        aside, count = _data(backup, manifest, loaded.config.data_path)
        aside += _secrets(SecretStore(loaded.config.name), opened, loaded.config.state_path)
    models = tuple(str(model["name"]) for model in manifest["models"])
    return Restored(loaded, count, tuple(opened), models, tuple(aside))


def _refuse_while_in_force(name: str) -> None:
    """Data is not moved under a stack that is up: what it writes after that would be lost."""
    current = GenerationStore(name).current()
    if current is not None:
        raise PreflightError(
            f"stack {name} is up on this host (generation {current.number})",
            fix=f"stackctl -f {next(iter(current.meta.get('config', ())), 'FILE')} down",
        )


def _refuse_while_running(loaded: Loaded) -> None:
    """Also one that nobody put in force: left by an `up` that was cut off."""
    stack = open_stack(loaded)
    services = stack.runtime.status().services
    running = [one.name for one in services if one.state not in ("absent", "exited", "created")]
    if running:
        raise PreflightError(
            f"{', '.join(running)} of stack {stack.name} runs on this host",
            fix=f"stackctl -f {loaded.files[0]} down",
        )


def _needs(manifest: dict[str, Any], loaded: Loaded) -> list[Need]:
    size = sum(int(entry["size"]) for entry in manifest["files"] if entry["path"].startswith("data/"))
    return [Need(loaded.config.data_path, size, "the data of the backup")]


def _secrets(store: SecretStore, values: dict[str, str], state: Path) -> list[Path]:
    """Other values that are there are kept: what was made with them cannot be read without."""
    aside = []
    if any(name in store.names() and store.get(name).reveal() != value for name, value in values.items()):
        kept = state / f"secrets.replaced-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
        shutil.copytree(store.folder, kept)
        kept.chmod(0o700)
        aside.append(kept)
    for name, value in values.items():
        store.set(name, value)
    return aside


def _open_secrets(
    backup: Path, manifest: dict[str, object], passphrase: str | None, identities: Sequence[str]
) -> dict[str, str]:
    how = manifest["secrets"]
    if how in ("none", "left out"):
        return {}
    blob = archive.read(backup, manifest, SECRETS)
    found: dict[str, str] = json.loads(age.decrypt(blob, passphrase=passphrase, identities=identities))
    return found


def _config(
    backup: Path, manifest: dict[str, object], folder: Path, as_name: str | None, changes: dict[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    main = folder / str(manifest["stack_file"])
    overlay = f"{main.stem}.{manifest.get('overlay')}{main.suffix}"
    for entry, content in archive.contents(backup, manifest):
        if not entry.path.startswith("config/"):
            continue
        target = folder / _inside(entry.path.removeprefix("config/"))
        text = content.read()
        if (target == main or target.name == overlay) and (as_name or changes):
            document = yaml.safe_load(text) or {}
            text = yaml.safe_dump(
                _merged(document, {**changes, **({"name": as_name} if as_name else {})})
            ).encode()
        if target.exists() and target.read_bytes() != text:
            raise PreflightError(
                f"{target} is there and differs from the backup's",
                fix=f"restore into an empty folder, or mv {target} away",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)
        durable.sync([target, target.parent])


def _merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over the document, mapping by mapping."""
    result = dict(document)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = _merged(old or {}, value) if isinstance(value, dict) else value
    return result


def _data(backup: Path, manifest: dict[str, object], data: Path) -> tuple[list[Path], int]:
    """Unpacked beside the live folders, then put in their place by rename."""
    drafts: dict[str, Path] = {}

    def place(path: str) -> Path:
        service, _, relative = path.removeprefix("data/").partition("/")
        draft = data / f".{_inside(service)}.restoring"
        if service not in drafts:
            shutil.rmtree(draft, ignore_errors=True)  # of a restore that was cut off
            drafts[service] = draft
        return draft / _inside(relative)

    folders = archive.folders(manifest)
    for folder in folders:
        place(folder.path).mkdir(parents=True, exist_ok=True)
    count = 0
    for entry, content in archive.contents(backup, manifest):
        if entry.path.startswith("data/"):
            archive.unpack(entry, content, place(entry.path))
            count += 1
    # After the files, so that none is written through a link; then the folders, which may be read-only.
    for link in archive.links(manifest):
        place(link.path).symlink_to(link.target)
    for folder in reversed(folders):
        _as_it_was(place(folder.path), folder)
    if not folders:
        for draft in drafts.values():
            _own_folders(draft)
    for draft in drafts.values():
        durable.sync_tree(draft)
    return [moved for service, draft in drafts.items() if (moved := _swap(draft, data / service))], count


def _as_it_was(path: Path, folder: archive.Folder) -> None:
    path.chmod(folder.mode)
    if os.geteuid() == 0:
        os.chown(path, folder.uid, folder.gid)


def _swap(draft: Path, live: Path) -> Path | None:
    """The draft in the place of the live folder; returns where that went, when there was something in it."""
    moved = None
    if live.exists() and any(live.iterdir()):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        moved = live.with_name(f"{live.name}.replaced-{stamp}")
        os.replace(live, moved)
    elif live.exists():
        live.rmdir()
    os.replace(draft, live)
    durable.sync([live.parent])
    return moved


def _own_folders(draft: Path) -> None:
    """In a backup of an older stackctl, which lists no folders, they belong to whom their files belong to."""
    if os.geteuid() != 0:
        return
    for path in [draft, *(found for found in draft.rglob("*") if found.is_dir())]:
        first = next((found for found in path.rglob("*") if found.is_file()), None)
        if first is not None:
            os.chown(path, first.stat().st_uid, first.stat().st_gid)


def _inside(name: str) -> str:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or not name:
        raise StackctlError(f"the backup names a file outside of its folder: {name!r}")
    return name

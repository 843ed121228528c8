"""Writes a backup of a stack: configuration, data, secrets, Modelfiles, and the list of models."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import __version__
from stackctl.backup import age, copying, models, sources, targets, waking
from stackctl.backup.archive import Writer
from stackctl.engine_api import EngineError
from stackctl.errors import StackctlError
from stackctl.operations import room
from stackctl.operations.context import Stack
from stackctl.operations.room import Need
from stackctl.runtime.guardian import afterwards
from stackctl.runtime.secrets import SecretStore

SECRETS = "secrets.age"
MODELS = "models.json"
SCRATCH = "stackctl-backup-"
ENCRYPTED = ("passphrase", "recipients")
"""How secrets can be in a backup; or there are none, or they were left out."""


def folder(stack: Stack) -> Path:
    return stack.config.state_path / "backups"


def file_name(stack: Stack, now: datetime | None = None) -> str:
    return f"{stack.name}-{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%SZ')}.backup"


def create(stack: Stack, path: Path) -> Path:
    _sweep(stack, path)
    room.refuse_unless_fits(needs(stack, path), fix="stackctl run disk-full")
    writer = Writer(path)
    try:
        _configuration(stack, writer)
        with _still(stack):
            _data(stack, writer)
        secrets = _secrets(stack, writer)
        models = _models(stack, writer)
        current = stack.store.current()
        return writer.finish(
            {
                "stack": stack.name,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "stackctl": __version__,
                "runtime": stack.choice.name,
                "generation": current.number if current else None,
                "images": dict(current.lock) if current else {},
                "secrets": secrets,
                "models": models,
                "stack_file": stack.loaded.files[0].name,
                "overlay": stack.loaded.overlay,
            }
        )
    except BaseException:
        writer.abandon()
        raise


def _sweep(stack: Stack, path: Path) -> None:
    """Remove what one that was killed has left: its names carry the time, so nothing writes over them."""
    if path.parent.is_dir():
        targets.sweep(path.parent, path.name)
    for left in stack.config.state_path.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _configuration(stack: Stack, writer: Writer) -> None:
    main = stack.loaded.files[0]
    others = sorted(main.parent.glob(f"{main.stem}.*{main.suffix}"))
    own = main.parent / "procedures"
    for path in dict.fromkeys([*stack.loaded.files, *others, stack.lock_file]):
        if path.exists():
            writer.add_file(f"config/{path.name}", path)
    for path in sorted(own.glob("*.md")) if own.is_dir() else []:
        writer.add_file(f"config/procedures/{path.name}", path)


@contextlib.contextmanager
def _still(stack: Stack) -> Iterator[None]:
    """With consistency: stop, the services that have data rest while it is copied.

    Afterwards all of them are started that the generation in force has, also when this process is killed.
    """
    current = stack.store.current()
    if stack.config.backup.consistency != "stop" or current is None:
        yield
        return
    ours = set(current.meta["services"])
    names = [source.service for source in sources.of(stack.config) if source.service in ours]
    status = stack.runtime.status()
    running = [name for name in names if status.service(name).state == "running"]
    if not names:
        yield
        return
    with afterwards(waking.command(stack, names)):
        if running:
            stack.say(f"stopping {', '.join(running)} for the copy")
            stack.runtime.stop(running)
        yield


def _data(stack: Stack, writer: Writer) -> None:
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=_room(stack)) as scratch:
        for source in sources.of(stack.config):
            place = f"data/{source.service}"
            for path, relative in copying.folders(source):
                writer.add_folder(f"{place}/{relative}", path)
            for path, relative in copying.files(source):
                copy = Path(scratch) / "file"
                try:
                    if note := copying.copy_file(path, copy, vital=relative in source.vital):
                        stack.say(f"note: {source.service}: {note}")
                except FileNotFoundError:
                    continue
                writer.add_file(f"{place}/{relative}", copy)
                copy.unlink()
            for path, relative in copying.links(source):
                writer.add_link(f"{place}/{relative}", os.readlink(path))
            if odd := copying.odd_files(source):
                stack.say(f"note: {source.service}: left out, no plain files: {', '.join(odd)}")


def _room(stack: Stack) -> Path:
    place = stack.config.state_path
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def _secrets(stack: Stack, writer: Writer) -> str:
    """How they are in the backup: never in clear text."""
    store, config = SecretStore(stack.name), stack.config.backup
    values = {name: store.get(name).reveal() for name in store.names()}
    if not values:
        return "none"
    plain = json.dumps(values).encode()
    if config.passphrase_file is not None:
        writer.add_bytes(SECRETS, age.encrypt(plain, passphrase=read_passphrase(config.passphrase_file)))
        return "passphrase"
    if config.recipients:
        writer.add_bytes(SECRETS, age.encrypt(plain, recipients=config.recipients))
        return "recipients"
    stack.say(
        f"note: {len(values)} secrets are left out: set backup.passphrase_file or backup.recipients; "
        "a restored stack makes new ones"
    )
    return "left out"


def read_passphrase(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip("\r\n")
    except OSError as error:
        raise StackctlError(f"cannot read the passphrase in {path}: {error.strerror}") from None
    if len(text) < 8:
        raise StackctlError(
            f"the passphrase in {path} has fewer than 8 characters", fix=f"write a longer one to {path}"
        )
    return text


def _models(stack: Stack, writer: Writer) -> list[dict[str, Any]]:
    """Listed by digest, not copied; their Modelfiles are small and go along."""
    client = stack.engine()
    listed = []
    try:
        for model in client.tags():
            name, about = str(model["name"]), client.show(str(model["name"]))
            if text := str(about.get("modelfile") or ""):
                writer.add_bytes(models.member(name), text.encode())
            parent = str((about.get("details") or {}).get("parent_model") or "")
            facts = {"digest": model.get("digest", ""), "size": model.get("size", 0)}
            listed.append({"name": name, **facts, "parent": parent})
    except EngineError as error:
        stack.say(f"note: the models cannot be listed: {error.what}")
        return []
    return listed


def needs(stack: Stack, path: Path) -> list[Need]:
    """What a backup takes: packed as the last one was, with its largest file twice beside it."""
    data = [found.stat().st_size for source in sources.of(stack.config) for found, _ in copying.files(source)]
    before = max((found.stat().st_size for found in path.parent.glob("*.backup")), default=0)
    size = before + before // 2 if before else sum(data)
    return [
        Need(path.parent, size + (16 << 20), "the backup"),
        Need(stack.config.state_path, 2 * max(data, default=0), "copies of a file while it is packed"),
    ]


def free_space(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free

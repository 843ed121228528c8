"""`backup.*`: a backup made, verified, sent, pruned, restored, and proven by a restore into a scratch
stack.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

from stackctl.backup import archive, create, mounts, restore, retention, targets
from stackctl.config.section import format_size
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations.context import Stack, open_stack
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action

DRILL = "drill"


class FileArgs(Args):
    file: str


class DrillArgs(Args):
    file: str
    passphrase_file: str | None = None
    identity: str | None = None


class RestoreArgs(DrillArgs):
    folder: str


def _stack(context: Context) -> Stack:
    return context.stack.handle


@action("backup.create", irreversible=False, gives=("file", "size"))
def backup_create(context: Context, _args: Args) -> Outcome:
    """Writes a backup of configuration, data, secrets and Modelfiles."""
    stack = _stack(context)
    path = create.create(stack, create.folder(stack) / create.file_name(stack))
    size = path.stat().st_size
    return Outcome(True, f"{path} ({format_size(size)})", {"file": str(path), "size": size})


@action("backup.verify", FileArgs, reads_only=True, gives=("secrets", "files"))
def backup_verify(_context: Context, args: FileArgs) -> Outcome:
    """Reads every byte of a backup and names what is damaged."""
    manifest = archive.verify(Path(args.file))
    count = len(manifest["files"])
    data = {"secrets": manifest["secrets"], "files": count}
    return Outcome(True, f"{count} files whole, of {manifest['created']}", data)


@action("backup.send", FileArgs, irreversible=False)
def backup_send(context: Context, args: FileArgs) -> Outcome:
    """Copies a backup to every place of the stack file; all are tried, failures are told together."""
    sent, failed = [], []
    config = _stack(context).config
    for place in config.backup.to:
        target = targets.of(place, context.remaining)
        try:
            mounts.refuse_unmounted(place, config.state_path)
            target.send(Path(args.file))
            mounts.remember(place, config.state_path)
            sent.append(target.label)
        except StackctlError as error:
            failed.append(error.what)
    if failed:
        raise StackctlError(f"not everywhere: {'; '.join(failed)}")
    return Outcome(
        True, f"sent to {', '.join(sent)}" if sent else "kept on this host: backup.to names no place"
    )


@action("backup.prune", irreversible=True)
def backup_prune(context: Context, _args: Args) -> Outcome:
    """Removes the backups that no retention rule wants, everywhere."""
    stack = _stack(context)
    removed = 0
    for target in targets.places(stack, context.remaining):
        times = {name: at for name in target.names(stack.name) if (at := targets.time_of(name, stack.name))}
        kept = retention.kept(times.values(), stack.config.backup.keep)
        for name, at in times.items():
            if at not in kept:
                target.remove(name)
                removed += 1
    return Outcome(True, f"{removed} old backups removed")


@action("backup.newest", reads_only=True, gives=("file",))
def backup_newest(context: Context, _args: Args) -> Outcome:
    """Finds the newest backup on this host."""
    stack = _stack(context)
    names = targets.FolderTarget(create.folder(stack)).names(stack.name)
    if not names:
        raise PreflightError(f"there is no backup in {create.folder(stack)}", fix="stackctl backup create")
    return Outcome(True, names[-1], {"file": str(create.folder(stack) / names[-1])})


@action("backup.restore", RestoreArgs, irreversible=False, gives=("stack_file", "models"))
def backup_restore(_context: Context, args: RestoreArgs) -> Outcome:
    """Puts configuration, data and secrets of a backup in place; what is there is moved aside."""
    done = restore.restore(Path(args.file), Path(args.folder), **_keys(args))
    detail = f"{done.files} data files, {len(done.secrets)} secrets into {done.loaded.config.data_path}"
    data = {"stack_file": str(done.loaded.files[0]), "models": list(done.models)}
    return Outcome(True, detail + "".join(f"; {path} holds what was there" for path in done.aside), data)


@action("backup.drill", DrillArgs, irreversible=False, gives=("services",))
def backup_drill(context: Context, args: DrillArgs) -> Outcome:
    """Restores into a scratch stack on other ports, brings it up, proves it, and takes it away."""
    from stackctl.operations.down import down
    from stackctl.operations.up import up

    live = _stack(context)
    scratch = live.config.state_path / DRILL
    name = f"{live.name[:33]}-drill"
    _remove_drill(live, name, scratch)
    services = {service: _other_ports(live, service) for service in live.config.services.enabled()}
    changes: dict[str, Any] = {"services": services, "data_dir": str(scratch / "data"), "data_mount": None}
    try:
        done = restore.restore(
            Path(args.file), scratch / "stack", as_name=name, changes=changes, **_keys(args)
        )
        stack = open_stack(done.loaded, live.say)
        try:
            result = up(stack)
            answered = ", ".join(done.loaded.config.services.enabled())
            return Outcome(
                True,
                f"{answered} of the backup came up healthy (engine {result.engine_version}), "
                f"{done.files} data files",
                {"services": list(services)},
            )
        finally:
            down(stack)
    finally:
        _remove_drill(live, name, scratch)


def _other_ports(stack: Stack, service: str) -> dict[str, int]:
    """Beside the running stack, every published port has to be another one."""
    fields = type(stack.config.services.enabled()[service]).model_fields
    return {name: _free_port() for name in fields if name == "port" or name.endswith("_port")}


def _remove_drill(live: Stack, name: str, scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(live.config.state_path.parent / name, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _keys(args: DrillArgs) -> dict[str, Any]:
    passphrase = create.read_passphrase(Path(args.passphrase_file)) if args.passphrase_file else None
    return {"passphrase": passphrase, "identities": read_identities(args.identity)}


def read_identities(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip().upper().startswith("AGE-SECRET-KEY-1"))

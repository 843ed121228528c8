"""`backup.*`: a backup made, verified, sent, pruned, restored, and proven by a restore into a scratch
stack.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackctl.backup import age, archive, create, mounts, restore, retention, targets
from stackctl.backup.drill import Drill
from stackctl.config.backup import BackupConfig
from stackctl.config.section import format_size
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations.context import Stack, open_stack
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.runtime.ports import free_port


class FileArgs(Args):
    file: str


class SendArgs(FileArgs):
    everywhere: bool = True


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


@action("backup.send", SendArgs, irreversible=False)
def backup_send(context: Context, args: SendArgs) -> Outcome:
    """Copies a backup to every place of the stack file that lacks it; failures are told together.

    With `everywhere: false` a place that cannot be had is only told of.
    """
    sent, failed = [], []
    config = _stack(context).config
    for place in config.backup.to:
        target = targets.of(place, context.remaining)
        try:
            mounts.refuse_unmounted(place, config.state_path)
            # Sent already, when another place made this step be tried again: whatever has the name is whole.
            if Path(args.file).name not in target.names(config.name):
                target.send(Path(args.file))
            mounts.remember(place, config.state_path)
            sent.append(target.label)
        except StackctlError as error:
            failed.append(error.what)
    if failed and args.everywhere:
        raise StackctlError(f"not everywhere: {'; '.join(failed)}")
    if not config.backup.to:
        return Outcome(True, "kept on this host: backup.to names no place")
    told = [f"it is in {', '.join(sent)}"] if sent else []
    return Outcome(True, "; not sent: ".join([*told, *failed]) if told else f"not sent: {'; '.join(failed)}")


@action("backup.prune", irreversible=True)
def backup_prune(context: Context, _args: Args) -> Outcome:
    """Removes the backups that no retention rule wants, everywhere; a place that is away keeps its own."""
    stack = _stack(context)
    removed, away = 0, []
    for target in targets.places(stack, context.remaining):
        try:
            names = target.names(stack.name)
        except StackctlError as error:
            # Not this step's failure: the others, and this host's own folder, are not to fill up for it.
            away.append(error.what)
            continue
        removed += _prune(stack, target, names)
    return Outcome(True, "; not asked: ".join([f"{removed} old backups removed", *away]))


def _prune(stack: Stack, target: targets.Target, names: list[str]) -> int:
    times = {name: at for name in names if (at := targets.time_of(name, stack.name))}
    kept = retention.kept(times.values(), stack.config.backup.keep)
    old = [name for name, at in times.items() if at not in kept]
    for name in old:
        target.remove(name)
    return len(old)


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
    with _told_for_a_page():
        done = restore.restore(Path(args.file), Path(args.folder), **_keys(args))
    detail = f"{done.files} data files, {len(done.secrets)} secrets into {done.loaded.config.data_path}"
    data = {"stack_file": str(done.loaded.files[0]), "models": list(done.models)}
    return Outcome(True, detail + "".join(f"; {path} holds what was there" for path in done.aside), data)


@action("backup.may-drill", reads_only=True)
def backup_may_drill(context: Context, _args: Args) -> Outcome:
    """Refuses where a stack of somebody's has the scratch stack's name."""
    drill = Drill(_stack(context))
    drill.refuse_if_taken()
    return Outcome(True, f"{drill.name} is free")


@action("backup.drill", DrillArgs, irreversible=False, gives=("services",))
def backup_drill(context: Context, args: DrillArgs) -> Outcome:
    """Restores into a scratch stack on other ports, brings it up, proves it, and takes it away."""
    from stackctl.operations.up import up

    live = _stack(context)
    drill = Drill(live)
    drill.remove()  # of one that was cut off
    drill.claim()
    services = {service: _other_ports(live, service) for service in live.config.services.enabled()}
    changes: dict[str, Any] = {
        "services": services, "data_dir": str(drill.scratch / "data"), "data_mount": None
    }  # fmt: skip
    file, keys = Path(args.file), _keys(args, live.config.backup)
    new_secrets = not any(keys.values()) and archive.read_manifest(file)["secrets"] in create.ENCRYPTED
    try:
        with _told_for_a_page():
            done = restore.restore(
                file, drill.folder, as_name=drill.name, changes=changes, secrets=not new_secrets, **keys
            )
        result = up(open_stack(done.loaded, live.say))
        answered = ", ".join(done.loaded.config.services.enabled())
        with_secrets = ", with new secrets: no key of the backup's is here" if new_secrets else ""
        return Outcome(
            True,
            f"{answered} of the backup came up healthy (engine {result.engine_version}), "
            f"{done.files} data files{with_secrets}",
            {"services": list(services)},
        )
    finally:
        drill.remove()


@action("backup.remove-drill", irreversible=False)
def backup_remove_drill(context: Context, _args: Args) -> Outcome:
    """Takes down and removes what a drill that was cut off has left."""
    Drill(_stack(context)).remove()
    return Outcome(True, "no drill")


def _other_ports(stack: Stack, service: str) -> dict[str, int]:
    """Beside the running stack, every published port has to be another one."""
    fields = type(stack.config.services.enabled()[service]).model_fields
    return {name: free_port() for name in fields if name == "port" or name.endswith("_port")}


def _keys(args: DrillArgs, configured: BackupConfig | None = None) -> dict[str, Any]:
    """Those that were given, else the passphrase that this host makes its backups with."""
    path = Path(args.passphrase_file) if args.passphrase_file else None
    if path is None and args.identity is None and configured is not None:
        path = configured.passphrase_file
    passphrase = create.read_passphrase(path) if path else None
    return {"passphrase": passphrase, "identities": read_identities(args.identity)}


@contextlib.contextmanager
def _told_for_a_page() -> Iterator[None]:
    """What opens a backup is an input of the page here, not an option."""
    try:
        yield
    except age.CannotOpen as error:
        fix = "run it again with -i passphrase_file=FILE, or -i identity=FILE"
        raise StackctlError(error.what, fix=fix) from error


def read_identities(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip().upper().startswith("AGE-SECRET-KEY-1"))

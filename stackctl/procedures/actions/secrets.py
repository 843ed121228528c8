"""`secrets.*`: new values for the stack's secrets, with the old ones kept aside until all works."""

from __future__ import annotations

import shutil
from pathlib import Path

from stackctl.operations import gate
from stackctl.operations.rotation import rotate, users_of
from stackctl.operations.secret_kinds import rotatable
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.runtime.secrets import SecretStore


class NamesArgs(Args):
    names: tuple[str, ...] = ()


def _aside(context: Context) -> Path:
    return context.stack.state_dir / "secrets.before-rotation"


@action("secrets.keep")
def secrets_keep(context: Context, _args: Args) -> Outcome:
    """Copies the secrets aside, readable by nobody else."""
    store = SecretStore(context.stack.name)
    shutil.rmtree(_aside(context), ignore_errors=True)
    if not store.folder.is_dir():
        return Outcome(True, "this stack has no secrets")
    shutil.copytree(store.folder, _aside(context))
    _aside(context).chmod(0o700)
    return Outcome(True, f"{len(store.names())} secrets kept aside")


@action("secrets.rotate", NamesArgs, gives=("rotated",))
def secrets_rotate(context: Context, args: NamesArgs) -> Outcome:
    """Gives secrets (default: all that can be rotated) new values and restarts what uses them."""
    stack = context.stack.handle
    store = SecretStore(stack.name)
    names = args.names or [name for name in store.names() if rotatable(stack.config, name)]
    rotate(stack, *names)
    return Outcome(True, f"rotated: {', '.join(names) or 'none'}", {"rotated": list(names)})


@action("secrets.put-back")
def secrets_put_back(context: Context, _args: Args) -> Outcome:
    """Gives every secret its old value again and restarts what uses it."""
    stack = context.stack.handle
    store = SecretStore(stack.name)
    if not _aside(context).is_dir():
        return Outcome(True, "nothing was kept aside")
    users: set[str] = set()
    for path in sorted(_aside(context).iterdir()):
        value = path.read_text().strip()
        if path.name in store.names() and store.get(path.name).reveal() != value:
            store.set(path.name, value)
            users.update(users_of(stack, path.name))
    if users:
        stack.runtime.restart(sorted(users))
        gate.wait_healthy(stack, sorted(users), patient=True)
    shutil.rmtree(_aside(context))
    return Outcome(True, f"old values are back; restarted: {', '.join(sorted(users)) or 'nothing'}")


@action("secrets.forget")
def secrets_forget(context: Context, _args: Args) -> Outcome:
    """Removes the old values."""
    shutil.rmtree(_aside(context), ignore_errors=True)
    return Outcome(True, "old values removed")

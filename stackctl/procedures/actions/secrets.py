"""`secrets.*`: new values for the stack's secrets, with the old ones kept aside until all works.

Beside the old values stands which secrets are being rotated: a value that is back in its file says nothing of
what the services that run were started with.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stackctl import durable
from stackctl.errors import PreflightError
from stackctl.operations import gate
from stackctl.operations.rotation import rotate, to_rotate, users_of
from stackctl.operations.secret_kinds import rotatable
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.runtime.secrets import SecretStore

ROTATING = ".rotating"


class NamesArgs(Args):
    names: tuple[str, ...] = ()


def _aside(context: Context) -> Path:
    return context.stack.state_dir / "secrets.before-rotation"


@action("secrets.keep", irreversible=False)
def secrets_keep(context: Context, _args: Args) -> Outcome:
    """Copies the secrets aside, readable by nobody else."""
    store, aside = SecretStore(context.stack.name), _aside(context)
    if other := _differing(context):
        # They may be all that opens the data: a rotation that failed and could not be taken back left them.
        raise PreflightError(
            f"{aside} holds older values of {', '.join(other)}, from a rotation that did not end",
            fix="stackctl run rotate-keys --undo",
        )
    shutil.rmtree(aside, ignore_errors=True)
    if not store.folder.is_dir():
        return Outcome(True, "this stack has no secrets")
    draft = aside.with_name(f"{aside.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    shutil.copytree(store.folder, draft, dirs_exist_ok=True)
    draft.chmod(0o700)
    draft.rename(aside)
    return Outcome(True, f"{len(store.names())} secrets kept aside")


def _differing(context: Context) -> list[str]:
    """Names of secrets that were kept aside with another value than that in use."""
    store, aside = SecretStore(context.stack.name), _aside(context)
    kept = {path.name: path.read_text().strip() for path in _kept(aside)}
    names = store.names()
    return [name for name, value in kept.items() if name not in names or store.get(name).reveal() != value]


def _kept(aside: Path) -> list[Path]:
    return sorted(path for path in aside.glob("*") if not path.name.startswith("."))


def _rotating(aside: Path) -> set[str]:
    """Those that a rotation has begun with, however far it came."""
    try:
        return set(json.loads((aside / ROTATING).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()


@action("secrets.unkeep", irreversible=False)
def secrets_unkeep(context: Context, _args: Args) -> Outcome:
    """Removes the values that were kept aside when they are the ones in use; for the undo of secrets.keep."""
    if other := _differing(context):
        return Outcome(False, f"{_aside(context)} holds other values of {', '.join(other)}: they stay")
    shutil.rmtree(_aside(context), ignore_errors=True)
    return Outcome(True, "nothing is kept aside")


@action("secrets.rotate", NamesArgs, irreversible=False, gives=("rotated",))
def secrets_rotate(context: Context, args: NamesArgs) -> Outcome:
    """Gives secrets (default: all that can be rotated) new values and restarts what uses them."""
    stack = context.stack.handle
    store = SecretStore(stack.name)
    names = args.names or [name for name in store.names() if rotatable(stack.config, name)]
    to_rotate(stack, *names)  # what is refused is refused before anything has begun
    if (aside := _aside(context)).is_dir():
        durable.write(aside / ROTATING, json.dumps(list(names)))
        durable.sync([aside])
    rotate(stack, *names)
    return Outcome(True, f"rotated: {', '.join(names) or 'none'}", {"rotated": list(names)})


@action("secrets.put-back", irreversible=False)
def secrets_put_back(context: Context, _args: Args) -> Outcome:
    """Gives every secret its old value again and restarts what uses it."""
    stack = context.stack.handle
    store = SecretStore(stack.name)
    if not _aside(context).is_dir():
        return Outcome(True, "nothing was kept aside")
    touched = _rotating(_aside(context))
    for path in _kept(_aside(context)):
        value = path.read_text().strip()
        if path.name in store.names() and store.get(path.name).reveal() != value:
            touched.add(path.name)
            store.set(path.name, value)
    users = {user for name in touched for user in users_of(stack, name)}
    if users:
        stack.runtime.restart(sorted(users))
        gate.wait_healthy(stack, sorted(users), patient=True)
    shutil.rmtree(_aside(context))
    return Outcome(True, f"old values are back; restarted: {', '.join(sorted(users)) or 'nothing'}")


@action("secrets.forget", irreversible=True)
def secrets_forget(context: Context, _args: Args) -> Outcome:
    """Removes the old values."""
    shutil.rmtree(_aside(context), ignore_errors=True)
    return Outcome(True, "old values removed")

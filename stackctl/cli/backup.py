"""`stackctl backup …`: make, check, list and restore backups; volumes into files and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

if TYPE_CHECKING:
    from stackctl.operations.context import Stack

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
PASSPHRASE = click.option(
    "--passphrase-file", type=click.Path(exists=True, dir_okay=False), help="The passphrase of the secrets."
)
IDENTITY = click.option(
    "--identity", type=click.Path(exists=True, dir_okay=False), help="A file with an age secret key."
)


@click.group()
def backup() -> None:
    """Back up what cannot be made again: configuration, data, secrets, Modelfiles.

    \b
    Examples:
      stackctl backup create
      stackctl backup verify ai-20261121T020000Z.backup
      stackctl backup restore ai-20261121T020000Z.backup --to ~/ai
    """


@backup.command("create")
@click.pass_context
def create_(context: click.Context) -> int:
    """Make a backup, verify it, send it to every place of the stack file, and prune old ones.

    \b
    Examples:
      stackctl backup create
    """
    from stackctl.cli.upgrade import run_procedure

    return run_procedure(context, "backup", {}, yes=True)


@backup.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> int:
    """List the backups of this stack, in every place. Exit code: 1 when a place does not tell.

    \b
    Examples:
      stackctl backup list
      stackctl backup list --json
    """
    from stackctl.backup import targets
    from stackctl.errors import StackctlError

    stack = contexts.stack(context)
    rows: list[tuple[str, str]] = []
    unreachable: dict[str, str] = {}
    for target in targets.places(stack):
        try:
            rows += [(name, target.label) for name in target.names(stack.name)]
        except StackctlError as error:
            unreachable[target.label] = error.what
            output.say(f"error: {error.what}")
    if as_json:
        found = [{"name": name, "place": place} for name, place in rows]
        document = {"stack": stack.name, "backups": found, "unreachable": unreachable}
        output.emit_json("stackctl.backup-list/1", document)
    elif rows:
        click.echo(output.table(("backup", "place"), rows))
    return 1 if unreachable else 0


@backup.command("verify")
@FILE
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def verify(file: Path, as_json: bool) -> None:
    """Read every byte of a backup; name what is damaged. Exit code: 0 whole; 1 damaged.

    \b
    Examples:
      stackctl backup verify ai-20260131T032000Z.backup
    """
    from stackctl.backup import archive

    manifest = archive.verify(file)
    if as_json:
        output.emit_json(
            "stackctl.backup-manifest/1", {key: v for key, v in manifest.items() if key != "schema"}
        )
        return
    models = ", ".join(str(model["name"]) for model in manifest["models"]) or "none"
    click.echo(f"{file.name}: whole, {len(manifest['files'])} files of {manifest['created']}")
    click.echo(f"secrets: {manifest['secrets']}; models (listed, not copied): {models}")


@backup.command("fetch")
@click.argument("name")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), default=Path(), help="Folder for the backup file."
)
@click.pass_context
def fetch(context: click.Context, name: str, folder: Path) -> None:
    """Get backup NAME (as `backup list` shows it) from a place that has it, and verify it.

    \b
    stackctl backup fetch ai-20261121T020000Z.backup --to /tmp
    """
    from stackctl.backup import archive, targets
    from stackctl.errors import StackctlError, UsageError

    stack = contexts.stack(context)
    for target in targets.places(stack):
        try:
            if name not in target.names(stack.name):
                continue
            fetched = target.fetch(name, folder)
            archive.verify(fetched)
        except StackctlError as error:
            output.say(f"error: {error.what}")
            continue
        output.say(f"from {target.label}")
        click.echo(fetched)
        return
    raise UsageError(f"no place has a whole backup {name}", fix="stackctl backup list")


@backup.command("restore")
@FILE
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), default=Path(), help="Folder for the stack file."
)
@PASSPHRASE
@IDENTITY
@click.option("--no-up", is_flag=True, help="Put everything in place, and start nothing.")
@click.option("--no-models", is_flag=True, help="Leave the models for later: stackctl backup models FILE.")
@click.pass_context
def restore_(
    context: click.Context,
    file: Path,
    folder: Path,
    passphrase_file: str | None,
    identity: str | None,
    no_up: bool,
    no_models: bool,
) -> int:
    """Restore a stack from FILE, also onto an empty host: bring it up, and get its models again.

    The whole file is verified first. Data that is in the way is moved aside, never overwritten.

    \b
    Examples:
      stackctl backup restore ai-20260131T032000Z.backup --identity backup-key.txt
    """
    from stackctl.backup import archive, create
    from stackctl.backup import restore as restoring
    from stackctl.cli.up import bring_up_and_tell
    from stackctl.operations.context import open_stack
    from stackctl.procedures.actions.backup import read_identities
    from stackctl.runtime.lock import stack_lock

    name = str(archive.read_manifest(file)["stack"])  # the whole file is verified before anything is written
    passphrase = create.read_passphrase(Path(passphrase_file)) if passphrase_file else None
    with stack_lock(name):
        done = restoring.restore(
            file, folder.absolute(), passphrase=passphrase, identities=read_identities(identity)
        )
        output.say(f"restored {done.files} data files and {len(done.secrets)} secrets of {name}")
        for path in done.aside:
            output.say(f"what was there is in {path}")
        stack = open_stack(done.loaded)
        if not no_up and (code := bring_up_and_tell(stack)):
            return code
    where = done.loaded.files[0]
    click.echo(f"stack {name} is {'restored' if no_up else 'up'}: {where}")
    if done.loaded.overlay:
        output.say(f"with its overlay: export STACKCTL_OVERLAY={done.loaded.overlay}")
    if no_up or no_models:
        if done.models:
            output.say(f"its models come back with: stackctl -f {where} backup models {file}")
        return 0
    return _models(stack, file)


def _models(stack: Stack, file: Path) -> int:
    """Told apart from the rest: the stack is up, whatever a registry says."""
    from stackctl.backup import archive, models
    from stackctl.errors import StackctlError

    if "engine" not in stack.config.services.enabled():
        return 0
    done = models.recreate(file, archive.read_manifest(file), stack.engine(timeout=600), output.say)
    if done.made:
        click.echo(f"models back: {' '.join(done.made)}")
    if done.missing:
        listed = "; ".join(f"{name}: {why}" for name, why in done.missing.items())
        raise StackctlError(
            f"models that are not back: {listed}", fix=f"stackctl backup models {file}, to try again"
        )
    return 0


@backup.command("models")
@FILE
@click.pass_context
def models_(context: click.Context, file: Path) -> int:
    """Pull the models that FILE lists, and make those again that were made from others.

    Weights are not in a backup; what is here already is left alone. `backup restore` does this at its end.

    \b
    Examples:
      stackctl backup models ai-20260131T032000Z.backup
    """
    from stackctl.backup import archive

    archive.verify(file)
    return _models(contexts.stack(context), file)


@backup.command("key")
def key() -> None:
    """Make an age key pair: the secret key to stdout (keep it off this host), the public key to stderr.

    \b
    Examples:
      stackctl backup key > backup-key.txt
    """
    from stackctl.backup import age

    secret, public = age.new_identity()
    output.say(f"public key, for backup.recipients: {public}")
    click.echo(secret)


@backup.group("volume")
def volume() -> None:
    """Named Docker volumes into a tar file and back."""


def _image(context: click.Context) -> str:
    """Any image that is here will do: nothing of it is run."""
    current = contexts.stack(context).store.current()
    pins: dict[str, Any] = dict(current.lock) if current else {}
    found = next((str(pin) for pin in pins.values() if pin), None)
    if found is None:
        from stackctl.errors import PreflightError

        raise PreflightError("no image of the stack is here to mount the volume with", fix="stackctl up")
    return found


@volume.command("save")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--image", help="An image that is here; nothing of it is run.")
@click.pass_context
def volume_save(context: click.Context, name: str, file: Path, image: str | None) -> None:
    """Write volume NAME into the tar file FILE; its containers are paused meanwhile.

    \b
    Examples:
      stackctl backup volume save myvolume myvolume.tar
    """
    from stackctl.backup import volumes

    volumes.save(name, file, image or _image(context))
    click.echo(file)


@volume.command("load")
@click.argument("name")
@FILE
@click.option("--image", help="An image that is here; nothing of it is run.")
@click.pass_context
def volume_load(context: click.Context, name: str, file: Path, image: str | None) -> None:
    """Fill the new or empty volume NAME from the tar file FILE.

    \b
    Examples:
      stackctl backup volume load myvolume myvolume.tar
    """
    from stackctl.backup import volumes

    volumes.load(name, file, image or _image(context))
    click.echo(name)

"""`stackctl models`: the engine's models, and those that the stack file wants."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

_NAME = click.argument("name", shell_complete=contexts.complete_model)


@click.group()
def models() -> None:
    """List, pull, remove, load and pin models.

    \b
    Examples:
      stackctl models pull llama3.2:3b
      stackctl models sync --prune
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List the models that the engine has, and those that the stack file wants and it lacks.

    \b
    Examples:
      stackctl models list
      stackctl models list --json
    """
    from stackctl.config.section import format_size
    from stackctl.operations import models as operations

    stack = contexts.stack(context)
    lines = operations.listing(stack.engine(), stack.config)
    missing = operations.missing(lines, stack.config)
    if as_json:
        document = {"models": [dataclasses.asdict(line) for line in lines], "missing": missing}
        output.emit_json("stackctl.models/1", document)
        return
    rows = []
    for line in lines:
        notes = [word for word, holds in (("loaded", line.loaded), ("wanted", line.wanted)) if holds]
        if line.pinned:
            notes.append("pinned" if operations.same_digest(line.digest, line.pinned) else "NOT AS PINNED")
        digest = line.digest.removeprefix("sha256:")[:12]
        rows.append((line.name, format_size(line.size), digest, line.modified_at[:10], ", ".join(notes)))
    rows += [(name, "-", "-", "-", "wanted, missing") for name in missing]
    click.echo(output.table(("NAME", "SIZE", "DIGEST", "MODIFIED", ""), rows))


@models.command()
@_NAME
@click.pass_context
def pull(context: click.Context, name: str) -> None:
    """Pull NAME into the engine; by its digest, if the stack file pins one.

    \b
    Examples:
      stackctl models pull llama3.2:3b
    """
    from stackctl.operations import models as operations

    stack = contexts.stack(context)
    with _recorded(stack.name, "pull", name), pull_progress() as progress:
        operations.pull_wanted(stack.engine(), stack.config, name, progress)
    output.say(f"pulled {name}")


@models.command()
@_NAME
@click.option("--force", is_flag=True, help="Although the stack file wants it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rm(context: click.Context, name: str, force: bool, yes: bool) -> None:
    """Remove NAME from the engine; refused when the stack file wants it.

    \b
    Examples:
      stackctl models rm llama3.2:3b
      stackctl models rm llama3.2:3b --force --yes
    """
    from stackctl.operations import models as operations

    stack = contexts.stack(context)
    if not force:
        operations.refuse_wanted(stack.config, name)
    output.confirm(f"Remove model {name}?", yes=yes)
    with _recorded(stack.name, "rm", name):
        stack.engine().delete(name)
    output.say(f"removed {name}")


@models.command()
@_NAME
@click.option("--json", "as_json", is_flag=True, help="Print all that the engine says.")
@click.pass_context
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Show what the engine knows of NAME.

    \b
    Examples:
      stackctl models show llama3.2:3b --json
    """
    found = contexts.stack(context).engine().show(name)
    if as_json:
        output.emit_json("stackctl.model/1", {"name": name, "model": found})
        return
    details = found.get("details") or {}
    rows = [(key.replace("_", " "), str(value)) for key, value in details.items() if value]
    rows.append(("capabilities", ", ".join(found.get("capabilities") or [])))
    rows += [
        (line.split(None, 1)[0], line.split(None, 1)[-1])
        for line in (found.get("parameters") or "").splitlines()
    ]
    click.echo(output.table(("", ""), rows).lstrip("\n"))


@models.command()
@_NAME
@click.option("--keep-alive", default="-1", show_default=True, help="How long: 30m, or -1 for good.")
@click.pass_context
def load(context: click.Context, name: str, keep_alive: str) -> None:
    """Load NAME into memory and keep it there.

    \b
    Examples:
      stackctl models load llama3.2:3b
      stackctl models load llama3.2:3b --keep-alive 30m
    """
    from stackctl.operations import models as operations

    value = int(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
    operations.load(contexts.stack(context).engine(timeout=600), name, value)
    output.say(f"loaded {name}")


@models.command()
@_NAME
@click.pass_context
def unload(context: click.Context, name: str) -> None:
    """Take NAME out of memory.

    \b
    Examples:
      stackctl models unload llama3.2:3b
    """
    from stackctl.operations import models as operations

    operations.unload(contexts.stack(context).engine(timeout=60), name)
    output.say(f"unloaded {name}")


@models.command()
@click.option("--prune", is_flag=True, help="Remove models that the stack file does not want. Asks first.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print as JSON.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def sync(context: click.Context, prune: bool, dry_run: bool, as_json: bool, yes: bool) -> None:
    """Make the engine's models match models: in the stack file.

    \b
    Examples:
      stackctl models sync --dry-run
      stackctl models sync --prune --yes
    """
    from stackctl.errors import UsageError
    from stackctl.operations import models as operations

    if as_json and not dry_run:
        raise UsageError("--json is for --dry-run", fix="stackctl models sync --dry-run --json")
    stack = contexts.stack(context)
    client = stack.engine(timeout=600)
    steps = operations.sync_plan(client, stack.config, prune=prune)
    if as_json:
        output.emit_json("stackctl.models-sync/1", {"steps": [dataclasses.asdict(step) for step in steps]})
        return
    if dry_run or not steps:
        for step in steps:
            click.echo(f"{step.action} {step.name}: {step.why}")
        if not steps:
            click.echo("nothing to do")
        return
    doomed = [step.name for step in steps if step.action == "remove"]
    if doomed:
        output.confirm(f"Remove {', '.join(doomed)}?", yes=yes)
    planned = ", ".join(f"{step.action} {step.name}" for step in steps)
    with _recorded(stack.name, "sync", planned), pull_progress() as progress:
        for step in operations.sync(client, stack.config, prune=prune, progress=progress):
            click.echo(f"{step.action} {step.name}: {step.why}")


@models.command()
@_NAME
@click.pass_context
def pin(context: click.Context, name: str) -> None:
    """Write the digest that NAME has now into the stack file.

    \b
    Examples:
      stackctl models pin llama3.2:3b
    """
    from stackctl.operations import models as operations
    from stackctl.operations import pinning

    stack = contexts.stack(context)
    digest = operations.digest_of(stack.engine(), name)
    path = pinning.pin(stack.loaded, name, digest)
    output.say(f"pinned {name} to {digest[:19]} in {path}")


def _recorded(stack: str, action: str, what: str) -> AbstractContextManager[object]:
    from stackctl.runtime import audit

    return audit.recording(stack, f"models {action}", model=what)


@contextmanager
def pull_progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar for each layer at a terminal; without one a line whenever the status changes."""
    if not sys.stderr.isatty():
        said: list[str] = []

        def lines(event: dict[str, Any]) -> None:
            status = str(event.get("status", ""))
            if status and status not in said[-1:]:
                said.append(status)
                output.say(status)

        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def draw(event: dict[str, Any]) -> None:
            digest, total = event.get("digest"), event.get("total")
            if not digest or not total:
                bars.console.print(str(event.get("status", "")))
                return
            if digest not in tasks:
                tasks[digest] = bars.add_task(digest.removeprefix("sha256:")[:12], total=total)
            bars.update(tasks[digest], completed=event.get("completed", 0))

        yield draw

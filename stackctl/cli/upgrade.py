"""`stackctl upgrade`, `rollback`, `outdated`, `generations`: the procedures of the same names, and their
facts.
"""

from __future__ import annotations

from typing import Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


def run_procedure(
    context: click.Context,
    name: str,
    given: dict[str, Any],
    *,
    yes: bool,
    resume: bool = False,
    undo: bool = False,
) -> int:
    from stackctl.cli.procedures import finish, person
    from stackctl.procedures import locate, use
    from stackctl.procedures.stack_host import StackHost

    host = StackHost(contexts.stack(context))
    procedure = locate.find(name, host.folder)
    runs = use.runs_of(host)
    if resume or undo:
        return finish(use.go_on(procedure, given, host, runs, person(yes), undo=undo))
    return finish(use.start(procedure, given, host, runs, person(yes)))


@click.command()
@click.option(
    "--canary", is_flag=True, help="Probe the new engine on another port first, beside the old one."
)
@click.option("--resume", is_flag=True, help="Go on with an upgrade that was cut off.")
@click.option("--undo", is_flag=True, help="Take back an upgrade that was cut off.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Confirm what steps ask to be confirmed.")
@click.pass_context
def upgrade(
    context: click.Context, canary: bool, resume: bool, undo: bool, plan_only: bool, yes: bool
) -> int:
    """Move to the newest version of every image, or stay on the old one.

    Fetches while the old version runs, copies the data, switches, and holds the new version to its gates:
    health, stability, the API, sensible answers, speed. When one fails the old version comes back, with its
    data.

    \b
    Examples:
      stackctl upgrade --plan
      stackctl upgrade --canary
      stackctl upgrade --resume

    Exit code: 0 upgraded, or nothing to do; 3 refused before anything was changed; 4 went back to the old
    version; 5 going back failed too.
    """
    from stackctl.cli.procedures import print_plan
    from stackctl.procedures import locate
    from stackctl.procedures.stack_host import StackHost

    given: dict[str, Any] = {"canary": True} if canary else {}
    if resume and undo:
        raise click.UsageError("--resume and --undo exclude each other")
    if plan_only:
        host = StackHost(contexts.stack(context))
        return print_plan(locate.find("upgrade", host.folder), given, host, False)
    return run_procedure(context, "upgrade", given, yes=yes, resume=resume, undo=undo)


@click.command()
@click.argument("generation", type=int, required=False)
@click.option(
    "--data",
    type=click.Choice(["migrated", "always", "never"]),
    default="migrated",
    show_default=True,
    help="When to put back the data of that time.",
)
@click.option("--resume", is_flag=True, help="Go on with a rollback that was cut off.")
@click.option("--undo", is_flag=True, help="Take back a rollback that was cut off.")
@click.pass_context
def rollback(context: click.Context, generation: int | None, data: str, resume: bool, undo: bool) -> int:
    """Go back to GENERATION (default: the one before), with its images and, where needed, its data.

    After an upgrade that was cut off it goes back to the version that was in force.

    \b
    Examples:
      stackctl rollback
      stackctl rollback 7 --data always
    """
    if resume and undo:
        raise click.UsageError("--resume and --undo exclude each other")
    given: dict[str, Any] = {} if resume or undo else {"generation": generation or 0, "data": data}
    return run_procedure(context, "rollback", given, yes=True, resume=resume, undo=undo)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def outdated(context: click.Context, as_json: bool) -> int:
    """List services for which a newer image exists. Prints nothing, and exits 0, when there is none.

    Exit code: 0 everything is current; 7 something is outdated; 1 a registry did not tell.

    \b
    Examples:
      stackctl outdated
      stackctl outdated --json
    """
    from stackctl.upgrade import versions

    found, unknown = versions.outdated(contexts.stack(context))
    if as_json:
        rows = [
            {"service": one.service, "image": one.reference, "running": one.running, "newest": one.newest}
            for one in found
        ]
        output.emit_json("stackctl.outdated/1", {"outdated": rows, "unknown": unknown})
    elif found:
        shown = [(one.service, one.reference, _short(one.running), _short(one.newest)) for one in found]
        click.echo(output.table(("service", "image", "running", "newest"), shown))
    for line in unknown:
        output.say(f"error: {line}")
    return 7 if found else 1 if unknown else 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def generations(context: click.Context, as_json: bool) -> None:
    """List the generations of this stack, and which one is in force.

    \b
    Examples:
      stackctl generations
      stackctl generations --json
    """
    stack = contexts.stack(context)
    current, previous = stack.store.current(), stack.store.previous()
    rows = []
    for one in stack.store.all():
        role = "current" if current and one.number == current.number else ""
        role = role or ("previous" if previous and one.number == previous.number else "")
        pins = {
            service: one.lock.get(reference, "") for service, reference in one.meta.get("images", {}).items()
        }
        rows.append({"number": one.number, "role": role, "created": one.meta["created"], "images": pins})
    if as_json:
        output.emit_json("stackctl.generations/1", {"stack": stack.name, "generations": rows})
        return
    shown = [
        (
            str(row["number"]),
            row["role"],
            row["created"],
            ", ".join(f"{service} {_short(pin)}" for service, pin in row["images"].items()),
        )
        for row in rows
    ]
    click.echo(output.table(("generation", "", "created", "images"), shown))


def _short(pin: str) -> str:
    """`name@sha256:0123456789ab`: enough to tell two apart."""
    head, colon, digest = pin.partition("sha256:")
    return f"{head}{digest[:12]}" if colon else pin

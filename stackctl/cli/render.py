"""`stackctl render` and `plan`: what would be written, and what that would change."""

from __future__ import annotations

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command("render")
@click.option("--file", "name", default=None, help="Which rendered file (default: the main one).")
@click.option("--json", "as_json", is_flag=True, help="Print all files as JSON.")
@click.pass_context
def render(context: click.Context, name: str | None, as_json: bool) -> None:
    """Print what `up` would run, without changing anything.

    \b
    Examples:
      stackctl render > compose.yaml
      stackctl render --json | jq '.files | keys'
    """
    from stackctl.errors import UsageError
    from stackctl.operations.plan import would_run

    stack = contexts.stack(context)
    rendered = would_run(stack)
    for note in rendered.notes:
        output.say(f"note: {note}")
    if as_json:
        document = {"runtime": rendered.runtime, "digest": rendered.digest, "files": dict(rendered.files)}
        output.emit_json("stackctl.render/1", {"stack": rendered.stack, **document})
        return
    if name is not None and name not in rendered.files:
        raise UsageError(
            f"no file '{name}' is rendered; there are: {', '.join(rendered.files)}",
            fix=f"stackctl render --file {next(iter(rendered.files))}",
        )
    click.echo(rendered.files[name] if name else rendered.main, nl=False)


@click.command()
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 7 when there is something to do.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def plan(context: click.Context, detailed_exitcode: bool, as_json: bool) -> int:
    """Show what `up` would change: the file, which services are recreated, which images move.

    \b
    Examples:
      stackctl plan
      stackctl plan --detailed-exitcode || stackctl up
    """
    import dataclasses

    from stackctl.operations.plan import make_plan

    found = make_plan(contexts.stack(context))
    if as_json:
        output.emit_json("stackctl.plan/1", dataclasses.asdict(found))
    elif not found.changes:
        click.echo("nothing to do")
    else:
        for line in found.diff.splitlines():
            colour = "green" if line.startswith("+") else "red" if line.startswith("-") else None
            click.echo(output.paint(line, colour) if colour else line)
        for name, action in found.services.items():
            click.echo(f"{name}: {action}")
        for image in found.images:
            click.echo(f"image {image}")
    return 7 if detailed_exitcode and found.changes else 0

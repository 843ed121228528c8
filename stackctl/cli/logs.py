"""`stackctl logs` and `exec`: look into the services."""

from __future__ import annotations

import sys

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


@click.command()
@click.argument("services", nargs=-1, shell_complete=contexts.complete_service)
@click.option(
    "--since", metavar="WHEN", help="Only newer lines: 10m, 2h, or a time like 2026-01-31T12:00:00."
)
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), default=None, help="Only the last lines of each service."
)
@click.option("--follow/--no-follow", default=None, help="Keep on reading (default: only at a terminal).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def logs(
    context: click.Context,
    services: tuple[str, ...],
    since: str | None,
    tail: int | None,
    follow: bool | None,
    as_json: bool,
) -> None:
    """Show the logs of SERVICES (default: all) as one stream, oldest first.

    \b
    Examples:
      stackctl logs engine --tail 50
      stackctl logs --since 10m | grep -i error
    """
    import json

    stack = contexts.running_stack(context)
    known = [service.name for service in stack.runtime.status().services]
    chosen = contexts.known_services(services, known or list(stack.config.services.enabled()))
    if follow is None:
        follow = sys.stdout.isatty() and not as_json
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(known)}
    width = max((len(name) for name in chosen), default=0)
    for line in stack.runtime.logs(chosen, tail=tail, since=since, follow=follow):
        if as_json:
            at = line.at.isoformat() if line.at else None
            click.echo(json.dumps({"service": line.service, "at": at, "text": line.text}))
        else:
            name = output.paint(f"{line.service:{width}}", colours.get(line.service, "white"))
            click.echo(f"{name} | {line.text}")
        if follow:
            sys.stdout.flush()


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("service", shell_complete=contexts.complete_service)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_(context: click.Context, service: str, command: tuple[str, ...]) -> int:
    """Run COMMAND inside SERVICE, with this terminal; its exit code is ours.

    \b
    Examples:
      stackctl exec engine llm-engine list
      stackctl exec engine nvidia-smi -L
    """
    stack = contexts.running_stack(context)
    running = [one.name for one in stack.runtime.status().services]
    # One that was just taken out of the stack file runs until the next up.
    contexts.known_services((service,), list(dict.fromkeys([*stack.config.services.enabled(), *running])))
    return stack.runtime.exec_interactive(service, command)

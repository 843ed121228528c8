"""`stackctl down`, `restart`: stop, remove, start again."""

from __future__ import annotations

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command()
@click.option("--volumes", is_flag=True, help="Remove the data, too: models, databases. Asks first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def down(context: click.Context, volumes: bool, yes: bool) -> None:
    """Take the stack down. Data stays, unless --volumes.

    \b
    Examples:
      stackctl down
      stackctl down --volumes --yes
    """
    from stackctl.operations import down as downs

    stack = contexts.stack(context)
    if volumes:
        downs.refuse_links(stack)
        folders = downs.data_folders(stack)
        listed = ", ".join(str(folder) for folder in folders) or "no folders"
        output.confirm(f"Remove the data of stack {stack.name} for good ({listed})?", yes=yes)
    downs.down(stack, volumes=volumes)
    output.say(f"stack {stack.name} is down" + ("" if volumes else "; data is kept"))


@click.command()
@click.argument("services", nargs=-1, shell_complete=contexts.complete_service)
@click.pass_context
def restart(context: click.Context, services: tuple[str, ...]) -> None:
    """Restart SERVICES (default: all), and wait until they are healthy.

    \b
    Examples:
      stackctl restart engine
    """
    from stackctl.operations.down import restart as restart_services

    stack = contexts.running_stack(context)
    chosen = contexts.known_services(services, list(stack.config.services.enabled()))
    restart_services(stack, chosen)
    output.say(f"restarted {', '.join(chosen)}")

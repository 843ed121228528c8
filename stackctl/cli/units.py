"""`stackctl install-units`: the stack at boot, and its regular jobs."""

from __future__ import annotations

from pathlib import Path

import click

from stackctl import paths
from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command("install-units")
@click.option("--print", "show", is_flag=True, help="Print the units; write nothing.")
@click.option("--cron", is_flag=True, help="Print lines for /etc/cron.d instead.")
@click.option("--user", is_flag=True, help="For `systemctl --user`, without root.")
@click.option("--tunnel", "tunnels", multiple=True, metavar="NAME", help="Also keep this tunnel up.")
@click.option("--target", type=click.Path(path_type=Path), help="Write here, and enable nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def install_units(
    context: click.Context,
    show: bool,
    cron: bool,
    user: bool,
    tunnels: tuple[str, ...],
    target: Path | None,
    yes: bool,
) -> None:
    """Start the stack at boot, and run health checks, backups and model refreshes on time.

    The units are checked with systemd-analyze before they are written to /etc/systemd/system (or the user's
    folder).

    \b
    Examples:
      sudo stackctl -f /etc/stackctl/stack.yaml install-units
      stackctl install-units --print
      stackctl install-units --cron | sudo tee /etc/cron.d/stackctl
    """
    from stackctl.procedures.locate import find_all
    from stackctl.units import install, templates

    stack = contexts.stack(context)
    here = templates.Installation(
        stack.name,
        paths.program(),
        stack.loaded.files[0],
        stack.choice.name,
        stack.config.data_path,
        stack.config.data_mount,
        user,
        tunnels,
        frozenset(find_all(stack.loaded.files[0].parent)),
    )
    if cron:
        click.echo(templates.cron(here), nl=False)
        return
    if show:
        for name, text in templates.units(here).items():
            click.echo(f"# {name}\n{text}")
        return
    place = target or install.folder(here)
    output.confirm(f"Write {len(templates.units(here))} units to {place}?", yes=yes)
    for path in install.install(here, target=target):
        output.say(f"wrote {path}")

"""`stackctl install-units`: the stack at boot, and its regular jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stackctl import paths
from stackctl.cli import context as contexts
from stackctl.cli import output

if TYPE_CHECKING:
    from stackctl.operations.context import Stack
    from stackctl.units.templates import Installation


@click.command("install-units")
@click.option("--print", "show", is_flag=True, help="Print the units; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --print: as JSON.")
@click.option("--cron", is_flag=True, help="Print lines for /etc/cron.d instead.")
@click.option("--user", is_flag=True, help="For `systemctl --user`, without root.")
@click.option(
    "--tunnel", "tunnels", multiple=True, metavar="NAME", help="With --user: also keep this tunnel up."
)
@click.option("--target", type=click.Path(path_type=Path), help="Write here, and enable nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def install_units(
    context: click.Context,
    show: bool,
    as_json: bool,
    cron: bool,
    user: bool,
    tunnels: tuple[str, ...],
    target: Path | None,
    yes: bool,
) -> None:
    """Start the stack at boot, and run health checks, backups and model refreshes on time.

    They run with the stack file, the overlay and the environment of now: what the stack file refers to as
    ${NAME}, and what stackctl goes by (PATH, XDG_STATE_HOME, DOCKER_CONTEXT ...), is kept in units.env in the
    stack's state folder, for its owner alone. Install again after a change.

    The units are checked with systemd-analyze before they are written to /etc/systemd/system (or the user's
    folder).

    \b
    Examples:
      sudo stackctl -f /etc/stackctl/stack.yaml install-units
      stackctl --overlay nightly install-units --user
      stackctl install-units --print
      stackctl install-units --cron | sudo tee /etc/cron.d/stackctl
    """
    from stackctl.errors import UsageError
    from stackctl.units import environment, install, templates

    if tunnels and not user:
        raise UsageError(
            "a tunnel logs in with the keys of a user, so its unit is a user's: give --user",
            fix=f"stackctl install-units --user --tunnel {tunnels[0]}",
        )
    if as_json and not show:
        raise UsageError("--json is for --print", fix="stackctl install-units --print --json")
    stack = contexts.stack(context)
    here = _installation(context, stack, user, tunnels)
    values = environment.needed(stack.loaded, os.environ)
    if cron:
        environment.write(here.environment, values)
        output.say(f"wrote {here.environment}: {', '.join(values)}")
        click.echo(templates.cron(here), nl=False)
        return
    if as_json:
        output.emit_json("stackctl.units/1", {"units": templates.units(here), "environment": sorted(values)})
        return
    if show:
        for name, text in templates.units(here).items():
            click.echo(f"# {name}\n{text}")
        click.echo(f"# {here.environment} (mode 0600) will hold, as they are set now: {', '.join(values)}")
        return
    place = target or install.folder(here)
    output.confirm(f"Write {len(templates.units(here))} units to {place}?", yes=yes)
    for path in install.install(here, values, target=target):
        output.say(f"wrote {path}")
    output.say(f"wrote {here.environment}: {', '.join(values)}")


def _installation(context: click.Context, stack: Stack, user: bool, tunnels: tuple[str, ...]) -> Installation:
    import getpass

    from stackctl.procedures.locate import find_all
    from stackctl.units.templates import Installation

    services = stack.config.services.enabled().values()
    models = stack.config.services.engine.models_dir
    volumes = [volume.source for service in services for volume in service.volumes]
    return Installation(
        stack.name,
        paths.program(),
        stack.loaded.files[0],
        stack.choice.name,
        stack.config.data_path,
        state=stack.config.state_path,
        data_mount=stack.config.data_mount,
        overlay=context.find_root().obj["overlay"] or os.environ.get("STACKCTL_OVERLAY") or None,
        mounts=(*([models] if models else []), *volumes),
        owner=getpass.getuser(),
        user=user,
        tunnels=tunnels,
        procedures=frozenset(find_all(stack.loaded.files[0].parent)),
    )

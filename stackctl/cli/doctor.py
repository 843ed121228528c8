"""`stackctl doctor`: is this host fit for a stack, and what to do where it is not."""

from __future__ import annotations

import dataclasses

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

_COLOURS = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red", "skipped": "bright_black"}


@click.command()
@click.option(
    "--only",
    multiple=True,
    metavar="CHECK",
    shell_complete=contexts.complete_check,
    help="Only this check; may be given more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def doctor(context: click.Context, only: tuple[str, ...], as_json: bool) -> int:
    """Check this host: Docker, GPU, disk, ports, clock, locks. Works with no stack file, too.

    \b
    Examples:
      stackctl doctor
      stackctl doctor --only gpu --only disk --json

    Exit code: 0 no errors, 3 at least one.
    """
    from stackctl.config import loader
    from stackctl.doctor.checkup import examine
    from stackctl.doctor.host import Host

    path = loader.find(context.find_root().obj["stack_file"])
    config = contexts.load(context).config if path.exists() else None
    findings = list(examine(Host(config), only))
    bad = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        output.emit_json("stackctl.doctor/1", {"findings": [dataclasses.asdict(one) for one in findings]})
        return 3 if bad else 0
    width = max(len(finding.id) for finding in findings)
    for finding in findings:
        mark = output.paint(f"{finding.severity:8}", _COLOURS[finding.severity])
        click.echo(f"{mark} {finding.id:{width}}  {finding.evidence}")
        if finding.fix and not finding.good:
            click.echo(f"{'':8} {'':{width}}  fix: {finding.fix}")
    return 3 if bad else 0

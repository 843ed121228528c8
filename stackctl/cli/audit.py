"""`stackctl history`: who changed what and when."""

from __future__ import annotations

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command()
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many entries."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def history(context: click.Context, limit: int, as_json: bool) -> None:
    """Show what changed this stack: time, person, action, generations, result.

    \b
    Examples:
      stackctl history -n 5
    """
    from stackctl.runtime import audit

    found = audit.entries(contexts.load(context).config.name, limit)
    if as_json:
        output.emit_json("stackctl.history/1", {"entries": found})
        return
    rows = []
    for entry in found:
        moved = f"{entry.get('from') or '-'} -> {entry.get('to') or '-'}"
        who = entry.get("sudo_user") or entry["user"]
        rows.append(
            (entry["at"][:19], who, entry["action"], moved, f"{entry['duration']:.1f} s", entry["result"])
        )
    click.echo(output.table(("TIME (UTC)", "WHO", "ACTION", "GENERATION", "TOOK", "RESULT"), rows))

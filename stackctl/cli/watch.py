"""`stackctl watch`: the checks, again and again, on one screen. It only looks: it tells nobody."""

from __future__ import annotations

import os
import sys
import time

import click

from stackctl.health import plan, registry, session, view
from stackctl.health.model import Status
from stackctl.health.moment import iso
from stackctl.health.plan import Plan
from stackctl.health.report import Report
from stackctl.health.writers import table


@click.command("watch")
@click.option("--check", "patterns", multiple=True, metavar="ID", help="Only this check, such as container.*")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.5),
    default=5.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after this many looks.")
@click.pass_context
def watch(ctx: click.Context, patterns: tuple[str, ...], interval: float, count: int | None) -> None:
    """Show the checks live. Without a terminal, print a line for each change of a check.

    \b
    stackctl watch
    stackctl watch --check container.* --interval 1
    stackctl watch > changes.log
    """
    found = plan.load(ctx.obj["stack_file"], ctx.obj.get("overlay"))
    screen = sys.stdout.isatty()
    seen: dict[str, Status] = {}
    looks = 0
    while count is None or looks < count:
        if looks:
            time.sleep(interval)
        report = session.run(found, lambda: view.scene(found), session.Options(patterns, record=False))
        looks += 1
        if screen:
            _redraw(found, report)
        else:
            _changes(report, seen)


def _redraw(found: Plan, report: Report) -> None:
    policies = {row.check.id: registry.policy(row.check, found) for row in report.rows}
    text = table.table(report, policies, colour=not os.environ.get("NO_COLOR"))
    click.clear()
    click.echo(f"{iso(report.at.wall)}  (Ctrl-C ends)\n{text}")


def _changes(report: Report, seen: dict[str, Status]) -> None:
    """The first look prints what is not well; later ones, what changed."""
    for row in report.rows:
        if not row.shown or row.result.blocked_by is not None:
            continue
        before = seen.get(row.check.id, Status.OK)
        if row.result.status is not before:
            click.echo(
                f"{iso(report.at.wall)} {row.check.id} {before.name} -> {row.result.status.name}: "
                f"{row.result.summary}"
            )
        seen[row.check.id] = row.result.status
    sys.stdout.flush()

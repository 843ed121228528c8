"""`stackctl health`: is the stack well? The exit code says it: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from stackctl.durations import format_duration
from stackctl.errors import StackctlError
from stackctl.health import explain, plan, registry, session, state, view
from stackctl.health.model import Status
from stackctl.health.plan import Plan
from stackctl.health.report import Report
from stackctl.health.writers import document, nagios, table


@click.command("health")
@click.option(
    "--check", "patterns", multiple=True, metavar="ID", help="Only this check, such as disk or container.*"
)
@click.option("--list", "list_", is_flag=True, help="List the checks of this stack.")
@click.option("--explain", metavar="ID", help="What a check looks at, why, and what to do.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--nagios", "as_line", is_flag=True, help="One line with performance data.")
@click.option("--hard", is_flag=True, help="Judge by confirmed states: one bad look is not a failure yet.")
@click.option("--quiet-ok", is_flag=True, help="Print nothing when all is well (for cron).")
@click.option("--no-record", is_flag=True, help="Only look: remember nothing, tell nobody, mend nothing.")
@click.option("--forget", metavar="ID", help="Forget what a check has learned, such as the usual speed.")
@click.pass_context
def health(
    ctx: click.Context,
    patterns: tuple[str, ...],
    list_: bool,
    explain: str | None,
    as_json: bool,
    as_line: bool,
    hard: bool,
    quiet_ok: bool,
    no_record: bool,
    forget: str | None,
) -> None:
    """Check the stack, tell of confirmed changes, and exit 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.

    \b
    stackctl health                      all checks, as a table
    stackctl health --hard --quiet-ok    for cron: says something only when it is confirmed
    stackctl health --nagios             for a monitoring system
    stackctl health --explain gpu        what it looks at, why, what to do
    """
    try:
        found = plan.load(ctx.obj["stack_file"], ctx.obj.get("overlay"))
        if list_ or explain:
            _describe(found, explain, patterns, as_json)
        elif forget:
            _forget(found, forget)
        else:
            options = session.Options(patterns, not no_record, 0.0 if quiet_ok else 10.0)
            ctx.exit(_run(found, options, as_json=as_json, as_line=as_line, hard=hard, quiet_ok=quiet_ok))
    except BrokenPipeError:
        raise
    except OSError as error:
        # The state folder of another user, a full disk: it could not look, which is not a WARNING (exit 1).
        if as_line:
            click.echo("UNKNOWN: stackctl health could not run, see stderr")
        click.echo(f"error: health could not run: {error}", err=True)
        click.echo("fix: stackctl health --no-record", err=True)
        ctx.exit(int(Status.UNKNOWN))
    except StackctlError:
        if as_line:
            # A monitoring system reads stdout, and takes 2 for CRITICAL: a bad option must be UNKNOWN.
            click.echo("UNKNOWN: stackctl health could not run, see stderr")
            ctx.exit(_failed(ctx))
        raise
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, 1 would be read as a WARNING of the stack
        if as_line:
            click.echo("UNKNOWN: stackctl health could not run, see stderr")
        click.echo(f"error: health could not run: {type(error).__name__}: {error}", err=True)
        click.echo("fix: stackctl doctor", err=True)
        ctx.exit(int(Status.UNKNOWN))


def _run(
    found: Plan, options: session.Options, *, as_json: bool, as_line: bool, hard: bool, quiet_ok: bool
) -> int:
    pinger = None
    if found.health.ping and options.record and not options.patterns:
        from stackctl.health.ping import Pinger

        pinger = Pinger(found.health.ping)
    try:
        # A run that is turned away must not announce a start that has no end.
        begun = pinger.start if pinger else None
        report = session.run(found, lambda: view.scene(found), options, begun=begun)
    except state.Busy as busy:
        return _busy(busy, found, quiet_ok=quiet_ok, as_line=as_line)
    status = report.status(confirmed_only=hard)
    if quiet_ok and (report.unsaved or report.unwritten):
        click.echo(f"note: {report.trouble if report.unsaved else report.unwritten}", err=True)
    if not (quiet_ok and status is Status.OK):
        click.echo(_rendered(found, report, as_json=as_json, as_line=as_line, hard=hard))
        sys.stdout.flush()
    if pinger:
        pinger.finish(status, nagios.line(report, confirmed_only=hard))
        if pinger.problem and not quiet_ok:
            click.echo(f"note: ping: {pinger.problem}", err=True)
    return int(status)


def _rendered(found: Plan, report: Report, *, as_json: bool, as_line: bool, hard: bool) -> str:
    if as_json:
        return json.dumps(document.document(report), indent=2, ensure_ascii=False)
    if as_line:
        return nagios.line(report, confirmed_only=hard)
    policies = {row.check.id: registry.policy(row.check, found) for row in report.rows}
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return table.table(report, policies, colour=colour)


def _busy(busy: state.Busy, found: Plan, *, quiet_ok: bool, as_line: bool) -> int:
    """Silence is for a run that may still end: one that cannot must not keep the watch silent for ever."""
    pid = busy.holder.get("pid", "unknown")
    if busy.age > registry.longest_run(registry.build(view.scene(found)), found):
        text = f"health run pid {pid} has been at work for {format_duration(busy.age)}"
        if as_line:
            click.echo(f"UNKNOWN: {text}")
        click.echo(f"error: {text}: nothing is watched meanwhile\nfix: kill {pid}", err=True)
    elif quiet_ok:
        return int(Status.OK)
    else:
        if as_line:
            click.echo("UNKNOWN: another health run is at work")
        click.echo(f"another health run is at work (pid {pid}); nothing was done", err=True)
    return int(Status.UNKNOWN)


def _describe(found: Plan, name: str | None, patterns: tuple[str, ...], as_json: bool) -> None:
    checks = registry.build(view.scene(found))
    chosen = registry.choose(checks, (name,) if name else patterns)
    if as_json:
        data: dict[str, Any] = {
            "schema": "stackctl.health.checks/1",
            "checks": [explain.described(check, registry.policy(check, found)) for check in chosen],
        }
        click.echo(json.dumps(data, indent=2))
    elif name:
        click.echo("\n\n".join(explain.explanation(check, registry.policy(check, found)) for check in chosen))
    else:
        click.echo(explain.listing(chosen))


def _forget(found: Plan, name: str) -> None:
    checks = registry.choose(registry.build(view.scene(found)), (name,))
    gone = session.forget(found, [check.id for check in checks])
    click.echo(f"forgotten: {', '.join(gone) or 'nothing was known'}", err=True)


def _failed(ctx: click.Context) -> int:
    error = sys.exc_info()[1]
    if isinstance(error, StackctlError):
        click.echo(f"error: {error.what}", err=True)
        if error.fix:
            click.echo(f"fix: {error.fix}", err=True)
    return int(Status.UNKNOWN)

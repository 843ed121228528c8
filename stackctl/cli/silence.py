"""`stackctl silence`: hold messages back during planned work; the checks go on."""

from __future__ import annotations

import getpass
import json
import os
import socket
from typing import Any

import click

from stackctl.durations import format_duration, parse_duration
from stackctl.errors import StackctlError, UsageError
from stackctl.health import plan, registry, view
from stackctl.health.moment import Moment, iso
from stackctl.health.plan import Plan
from stackctl.health.silence import Silence, SilenceFile
from stackctl.runtime import audit

_LONGEST = 30 * 86400.0


@click.command("silence")
@click.argument("checks", nargs=-1)
@click.option("--for", "length", metavar="TIME", help="How long, such as 30m, 2h or 1d (default: 1h).")
@click.option("--reason", default="", help="Shown in stackctl health.")
@click.option("--end", metavar="ID", help="End a silence: its id, a check, or all.")
@click.option(
    "--test", is_flag=True, help="Send a test message over every channel, and say what they answer."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def silence(
    ctx: click.Context,
    checks: tuple[str, ...],
    length: str | None,
    reason: str,
    end: str | None,
    test: bool,
    as_json: bool,
) -> None:
    """Hold back messages about CHECKS (ids or patterns; `all` is every check), or list what is silenced.

    \b
    stackctl silence                                    what is silenced, and until when
    stackctl silence container --for 2h --reason disk   every container check
    stackctl silence all --for 30m                      everything
    stackctl silence --end all                          talk again
    """
    found = plan.load(ctx.obj["stack_file"], ctx.obj.get("overlay"))
    file, now = SilenceFile(found.state_path / "health"), Moment.now()
    if test:
        _test(found)
        return
    if end:
        gone = file.remove(end, now)
        if not gone:
            raise StackctlError(f"nothing is silenced by '{end}'", fix="stackctl silence")
        audit.record(found.stack, "silence.end", result="ok", silences=[item.id for item in gone])
    elif checks:
        _add(found, file, checks, length, reason, now)
    elif length or reason:
        raise UsageError("which checks shall be silent?", fix="stackctl silence all --for 1h")
    _show(file.active(now), now, as_json)


def _add(
    found: Plan, file: SilenceFile, checks: tuple[str, ...], length: str | None, reason: str, now: Moment
) -> None:
    try:
        seconds = parse_duration(length or "1h")
    except ValueError as error:
        raise UsageError(f"--for: {error}") from error
    if not 0 < seconds <= _LONGEST:
        raise UsageError(
            f"--for {length}: between 1s and 30d, so that nothing is silent for ever", fix="--for 1d"
        )
    patterns = tuple("*" if check == "all" else check for check in checks)
    registry.choose(registry.build(view.scene(found)), patterns)
    item = file.add(patterns, seconds, reason, _user(), now)
    audit.record(found.stack, "silence", result="ok", checks=list(patterns), seconds=seconds, id=item.id)


def _show(items: list[Silence], now: Moment, as_json: bool) -> None:
    if as_json:
        rows = [_described(item, now) for item in items]
        click.echo(json.dumps({"schema": "stackctl.silences/1", "silences": rows}, indent=2))
        return
    if not items:
        click.echo("nothing is silenced")
    for item in items:
        what = ", ".join("all" if check == "*" else check for check in item.checks)
        why = f": {item.reason}" if item.reason else ""
        click.echo(f"{item.id}  {what} for {format_duration(item.left(now))} more, by {item.by}{why}")


def _described(item: Silence, now: Moment) -> dict[str, Any]:
    return {
        "id": item.id,
        "checks": list(item.checks),
        "until": iso(now.wall + item.left(now)),
        "reason": item.reason,
        "by": item.by,
    }


def _test(found: Plan) -> None:
    from stackctl.health.notify import channels
    from stackctl.health.notify.dispatch import NotDelivered
    from stackctl.health.notify.message import Message

    if not found.notify.channels:
        raise StackctlError("there is no channel to test", fix="write notify.channels in the stack file")
    message = Message(
        stack=found.stack,
        host=socket.gethostname(),
        kind="reminder",
        status="WARNING",
        before="WARNING",
        check="test",
        title="test",
        summary="This is a test message: nothing is wrong.",
        fix="nothing to do",
        time=iso(Moment.now().wall),
    )
    failed = []
    for channel in found.notify.channels:
        try:
            channels.send(channel, message)
            click.echo(f"{channel.label}: delivered")
        except NotDelivered as error:
            failed.append(channel.label)
            click.echo(f"{channel.label}: not delivered: {error}")
    if failed:
        raise StackctlError(f"{', '.join(failed)} did not take the test message")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())

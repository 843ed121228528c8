"""`stackctl host`, `stackctl hosts`, `stackctl session`, and what `--host` does."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from stackctl.errors import UsageError

_HELP = {"help_option_names": ["-h", "--help"]}


def run_there(name: str, flags: list[str], words: list[str], stack_file: str | None) -> int:
    """`stackctl --host NAME WORDS…`; `flags` stood before the words, and do there as well."""
    from stackctl.hosts import runs
    from stackctl.tunnel import hosts

    if not name.strip():
        # A variable that was not set: the command must not run on this machine instead.
        raise UsageError("--host names no host: its value is empty", fix="stackctl hosts list")
    if not words:
        raise UsageError("--host needs a command to run there", fix=f"stackctl --host {name} status")
    command = words[0]
    if command in runs.LOCAL_ONLY:
        raise UsageError(f"'{command}' is about this machine: leave --host out")
    host = hosts.find(name, stack_file)
    if command == "run" and "--attach" in words:
        rest = [word for word in words if word not in ("run", "--attach")]
        if len(rest) > 1:
            raise UsageError("run --attach takes one session id at most")
        return runs.attach(host, rest[0] if rest else None)
    follow = runs.direct if command in runs.DIRECT else runs.run
    return follow(host, [*flags, *words])


@click.group(context_settings=_HELP)
def host() -> None:
    """Prepare another host to be managed from here."""


@host.command()
@click.argument("host")
@click.pass_context
def bootstrap(ctx: click.Context, host: str) -> int:
    """Install stackctl on HOST over SSH, then run doctor there.

    HOST needs Python 3.11 with venv, and no network: everything is copied from here.

    \b
    Examples:
      stackctl host bootstrap me@gpu-box
    """
    from stackctl.hosts import bootstrap as installing
    from stackctl.hosts import runs
    from stackctl.tunnel import hosts

    found = hosts.find(host, ctx.obj["stack_file"])
    installing.bootstrap(found, lambda line: click.echo(line, err=True))
    return runs.run(found, ["doctor"])


@click.group(context_settings=_HELP)
def hosts() -> None:
    """All hosts that have an entry in stack.yaml or hosts.yaml."""


@hosts.command()
@click.option("--timeout", default=15.0, show_default=True, help="Seconds that each host has to answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, timeout: float, as_json: bool) -> int:
    """Ask every host at once how it is. Exit 4 when one is not well.

    \b
    Examples:
      stackctl hosts status
      stackctl hosts status --json
    """
    from stackctl.hosts import overview
    from stackctl.tunnel import hosts as known

    found = known.all_hosts(ctx.obj["stack_file"])
    if not found:
        click.echo(f"no hosts: {known.hosts_file()} has none, and no stack.yaml names any", err=True)
    rows = []
    for row in overview.ask_all(list(found.values()), timeout):
        rows.append(row)
        if not as_json:
            # As they come: the quick ones need not wait for the slow one.
            click.echo(f"{row.name:<16} {row.state:<12} {row.summary}")
    if as_json:
        rows.sort(key=lambda row: row.name)
        document = {"schema": "stackctl.hosts/1", "hosts": [dataclasses.asdict(row) for row in rows]}
        click.echo(json.dumps(document, indent=1))
    return 0 if all(row.state == "ok" for row in rows) else 4


@hosts.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the hosts that have an entry.

    \b
    Examples:
      stackctl hosts list
    """
    from stackctl.tunnel import hosts as known

    found = known.all_hosts(ctx.obj["stack_file"])
    if as_json:
        entries = [{"name": name, "destination": str(each.destination)} for name, each in found.items()]
        click.echo(json.dumps({"schema": "stackctl.host-list/1", "hosts": entries}, indent=1))
        return
    for name, each in found.items():
        click.echo(f"{name:<16} {each.destination}")


@click.group(context_settings=_HELP)
def session() -> None:
    """Runs that outlive their connection: the far side of `stackctl --host`."""


_mark = click.option(
    "--mark",
    is_flag=True,
    help="Begin each stream with a zero byte, and stdout then with a line of two places: "
    "what follows is the run's.",
)


def _greet(session_id: str, out_from: int, err_from: int) -> tuple[int, int]:
    """Tell the near side that it got through, before the run has said a word, and from where it goes on."""
    from stackctl.hosts import sessions

    places = sessions.places(session_id, out_from, err_from)
    sys.stdout.buffer.write(sessions.MARK + b"%d %d\n" % places)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(sessions.MARK)
    sys.stderr.buffer.flush()
    return places


@session.command()
@click.argument("session_id", metavar="ID")
@click.option(
    "--out", "out_from", default=0, type=click.IntRange(min=0), help="Bytes of standard output to leave out."
)
@click.option(
    "--err", "err_from", default=0, type=click.IntRange(min=0), help="Bytes of standard error to leave out."
)
@_mark
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context, session_id: str, out_from: int, err_from: int, mark: bool, words: tuple[str, ...]
) -> int:
    """Run `stackctl WORDS…` apart from this connection, and follow it; an ID that runs is only followed.

    \b
    Examples:
      stackctl session run 9f3c2a7e1b04 up
    """
    from stackctl.hosts import sessions

    program = [sys.executable, "-c", "from stackctl.cli.main import main; main()"]
    if ctx.obj["stack_file"]:
        program += ["-f", ctx.obj["stack_file"]]
    if mark:
        out_from, err_from = _greet(session_id, out_from, err_from)
    sessions.start(session_id, [*program, *words])
    return _follow(session_id, out_from, err_from, skip=not mark)


@session.command()
@click.argument("session_id", metavar="ID")
@click.option(
    "--out", "out_from", default=0, type=click.IntRange(min=0), help="Bytes of standard output to leave out."
)
@click.option(
    "--err", "err_from", default=0, type=click.IntRange(min=0), help="Bytes of standard error to leave out."
)
@_mark
def attach(session_id: str, out_from: int, err_from: int, mark: bool) -> int:
    """Follow a run from the given place, and end as it ends.

    \b
    Examples:
      stackctl session attach 9f3c2a7e1b04
    """
    if mark:
        out_from, err_from = _greet(session_id, out_from, err_from)
    return _follow(session_id, out_from, err_from, skip=not mark)


def attach_here(session_id: str | None) -> int:
    """`stackctl run --attach` on the host itself."""
    from stackctl.hosts import sessions

    if session_id is None:
        session_id = sessions.latest()
        click.echo(f"attaching to {session_id}", err=True)
    return _follow(session_id, 0, 0, skip=True)


def _follow(session_id: str, out_from: int, err_from: int, *, skip: bool) -> int:
    from stackctl.hosts import sessions

    return sessions.attach(
        session_id, sys.stdout.buffer, sys.stderr.buffer, out_from=out_from, err_from=err_from, skip=skip
    )


@session.command()
@click.argument("session_id", metavar="ID")
@click.option("--ahead", is_flag=True, help="An ID that has not begun never will.")
def interrupt(session_id: str, ahead: bool) -> None:
    """Send the run what Ctrl-C would send.

    \b
    Examples:
      stackctl session interrupt 9f3c2a7e1b04
    """
    from stackctl.hosts import sessions

    sessions.interrupt(session_id, ahead=ahead)


@session.command()
def latest() -> None:
    """Print the id of the run that runs now, or of the last one.

    \b
    Examples:
      stackctl session latest
    """
    from stackctl.hosts import sessions

    click.echo(sessions.latest())


@session.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_sessions(as_json: bool) -> None:
    """List the runs on this host, oldest first.

    \b
    Examples:
      stackctl session list --json
    """
    from stackctl.hosts import sessions

    found = sessions.sessions()
    if as_json:
        entries = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps({"schema": "stackctl.sessions/1", "sessions": entries}, indent=1))
        return
    for each in found:
        state = (
            "running" if each.running else "killed" if each.exit_code is None else f"exit {each.exit_code}"
        )
        if not each.argv:
            click.echo(f"{each.id:<14} {each.started_at:<26} {state:<10} (interrupted before it began)")
            continue
        words = " ".join(each.argv[3:]) if each.argv[1:2] == ("-c",) else " ".join(each.argv)
        click.echo(f"{each.id:<14} {each.started_at:<26} {state:<10} stackctl {words}")

"""`stackctl tunnel`: the services of a host on this machine's loopback ports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from typing import Any

import click

from stackctl.errors import LockHeldError, PreflightError, StackctlError, UsageError

FORWARDED = {"engine": "OLLAMA_HOST", "gateway": "OPENAI_BASE_URL"}


class _Hold(click.FloatRange):
    """A range that NaN is not in: it compares with nothing, so no bound alone refuses it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return number


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tunnel() -> None:
    """Reach a host's services on local ports, over SSH, and keep it so.

    \b
    Examples:
      stackctl tunnel up gpubox              all services of gpubox, in the background
      stackctl tunnel up me@10.0.0.5 webui   one service, any ssh destination
      stackctl tunnel status                 what is up, proved by a request through it
      eval "$(stackctl tunnel env gpubox)"   point SDKs in this shell at it
    """


@tunnel.command()
@click.argument("host")
@click.argument("services", nargs=-1)
@click.option("--foreground", is_flag=True, help="Stay here; log to stderr; Ctrl-C ends the tunnel.")
@click.option("--persist", is_flag=True, help="Keep trying when the first connection fails, too.")
@click.option("--free-ports", is_flag=True, help="Take another local port where one is taken.")
@click.option("--port", "ports", multiple=True, metavar="SERVICE=PORT", help="Local port of a service.")
@click.option("--hold", type=_Hold(0, 60), help="Seconds that new connections wait while it reconnects.")
@click.option("--json", "as_json", is_flag=True, help="Print the tunnel's state as JSON.")
@click.pass_context
def up(
    ctx: click.Context,
    host: str,
    services: tuple[str, ...],
    foreground: bool,
    persist: bool,
    free_ports: bool,
    ports: tuple[str, ...],
    hold: float | None,
    as_json: bool,
) -> None:
    """Bring a tunnel up and keep it up. SERVICES: default is all that the host offers.

    \b
    Examples:
      stackctl tunnel up lab
      stackctl tunnel up lab engine --foreground
    """
    from stackctl.tunnel import auth, daemon, hosts, plan, state

    found = hosts.find(host, ctx.obj["stack_file"])
    wanted_ports = _ports(ports)
    running = state.read(found.tunnel_name)
    if running and running["pid"] and foreground:
        # Said before its ports are found taken, by itself.
        raise LockHeldError(
            f"the tunnel '{found.name}' is up already (pid {running['pid']})",
            fix=f"stackctl tunnel down {found.name}",
        )
    if running and running["pid"]:
        again = _again(found.name, services, ports, hold)
        _refuse_changes(found.name, running, wanted_ports, hold, again)
        if _same_forwards(running, services):
            how = "up" if running["state"] == "up" else f"running ({running['state']})"
            click.echo(f"the tunnel to {found.name} is {how} already", err=True)
            _print_up(running, as_json)
            return
        raise StackctlError(
            f"the tunnel to {found.name} is up with other services "
            f"({', '.join(f['service'] for f in running['forwards'])})",
            fix=f"stackctl tunnel down {found.name} && {again}",
        )
    forwards, why = plan.forwards_for(found, services, persist=persist)
    if unknown := wanted_ports.keys() - {forward.service for forward in forwards}:
        raise UsageError(f"--port names '{unknown.pop()}', which is not forwarded")
    try:
        forwards = plan.with_free_ports(plan.with_ports(forwards, wanted_ports), free_ports)
    except PreflightError as error:
        if foreground and persist:
            # Whoever keeps us up is to try again: at boot, a port may be taken for a moment.
            raise StackctlError(error.what, fix=error.fix) from None
        raise
    spec = plan.spec_for(found, forwards, persist=persist)
    if hold is not None:
        spec = dataclasses.replace(spec, hold=hold)
    click.echo(f"connecting to {found.destination} ({why})", err=True)
    if foreground:
        daemon.in_front(spec, auth.terminal(), lambda document: _print_up(document, as_json))
        return
    _print_up(daemon.in_background(spec, auth.terminal()), as_json)


def _ports(words: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for word in words:
        service, _, number = word.partition("=")
        if not (number.isascii() and number.isdigit()) or not 0 <= int(number) < 65536:
            raise UsageError(f"--port {word}: write it as SERVICE=PORT, with a port from 0 to 65535")
        found[service] = int(number)
    return found


def _same_forwards(document: dict[str, Any], services: tuple[str, ...]) -> bool:
    return not services or {f["service"] for f in document["forwards"]} == set(services)


def _again(name: str, services: tuple[str, ...], ports: tuple[str, ...], hold: float | None) -> str:
    """The command that was typed, as far as it decides what is forwarded and how."""
    words = ["stackctl tunnel up", name, *services, *(f"--port {port}" for port in ports)]
    return " ".join([*words, *([f"--hold {hold:g}"] if hold is not None else [])])


def _refuse_changes(
    name: str, running: dict[str, Any], ports: dict[str, int], hold: float | None, again: str
) -> None:
    """What runs keeps its options: asking for others must not look as if they were taken."""
    local = {forward["service"]: forward["local_port"] for forward in running["forwards"]}
    wanted = [
        f"{service} is on local port {local[service]}, not {port}"
        for service, port in ports.items()
        if port and local.get(service, port) != port
    ]
    if hold is not None and hold != running.get("hold"):
        wanted.append(f"it holds connections for {running.get('hold', 0):g} s, not {hold:g}")
    if wanted:
        raise StackctlError(
            f"the tunnel to {name} is up with other options: {'; '.join(wanted)}",
            fix=f"stackctl tunnel down {name} && {again}",
        )


def _print_up(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": "stackctl.tunnel/1", **document}, indent=1))
        return
    for forward in document["forwards"]:
        # The proxy has a certificate for its name, and no plain HTTP.
        proxied = forward["service"] == "proxy"
        address = f"https://localhost:{forward['local_port']}" if proxied else f"http://{forward['local']}"
        click.echo(f"{forward['service']:<10} {address}")
        if forward["service"] == "webui" and not forward["remote"].endswith(f":{forward['local_port']}"):
            click.echo(
                f"note: the web UI streams to addresses that it knows alone: add {address} to "
                "services.webui.origin on the host, or free its own port here",
                err=True,
            )
    for note in document["notes"]:
        click.echo(f"warning: {note}", err=True)
    sys.stdout.flush()


@tunnel.command()
@click.argument("host", required=False)
@click.option("--all", "every", is_flag=True, help="All tunnels.")
@click.pass_context
def down(ctx: click.Context, host: str | None, every: bool) -> None:
    """Take a tunnel down. One that is installed as a unit comes back at the next login.

    \b
    Examples:
      stackctl tunnel down lab
      stackctl tunnel down --all
    """
    from stackctl.tunnel import state, unit

    if every == (host is not None):
        raise UsageError("say which tunnel to take down: a host, or --all", fix="stackctl tunnel down --all")
    names = state.names() if every else [_name(ctx, str(host))]
    for name in names:
        before = state.read(name)
        if unit.stop(name):
            click.echo(f"{name}: down until the next login", err=True)
            click.echo(f"to end it for good: stackctl tunnel uninstall {name}", err=True)
        elif state.stop(name):
            click.echo(f"{name}: down", err=True)
        elif before is not None and before["state"] in ("died", "failed"):
            # Seen and done with: status must not complain of it for ever.
            state.forget(name)
            click.echo(f"{name}: was not up ({before['state']}); its state is cleared", err=True)
        elif not every:
            click.echo(f"{name}: was not up", err=True)


@tunnel.command()
@click.argument("host", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, host: str | None, as_json: bool) -> int:
    """Show each tunnel, and prove each service with a request through it. Exit 4 when one is not well.

    \b
    Examples:
      stackctl tunnel status
      stackctl tunnel status lab --json
    """
    from stackctl.tunnel import probe, state

    names = [_name(ctx, host)] if host else state.names()
    found = []
    for name in names:
        document = state.read(name)
        if document is None:
            if host is None:
                continue  # cleared while we looked, or another version's
            raise StackctlError(f"there is no tunnel '{name}'", fix=f"stackctl tunnel up {name}")
        found.append(document)
    asked = probe.probe_all(
        [
            [(f["service"], f["local_host"], f["local_port"]) for f in document["forwards"]]
            if document["pid"]
            else []
            for document in found
        ]
    )
    documents = []
    for document, probes in zip(found, asked, strict=True):
        well = document["state"] == "up" and all(each.alive for each in probes)
        documents.append(document | {"probes": [dataclasses.asdict(p) for p in probes], "well": well})
    if as_json:
        click.echo(json.dumps({"schema": "stackctl.tunnels/1", "tunnels": documents}, indent=1))
    else:
        for document in documents:
            _print_status(document)
        if not documents:
            click.echo("no tunnels", err=True)
    # One that was taken down on purpose is not ill.
    return 0 if all(d["well"] or d["state"] == "stopped" for d in documents) else 4


def _print_status(document: dict[str, Any]) -> None:
    mark = "ok" if document["well"] else "--" if document["state"] == "stopped" else "!!"
    since = f" since {document['since']}" if document["since"] else ""
    how = f" ({document['transport']}, {document['detail']})" if document["transport"] else ""
    click.echo(f"{mark} {document['name']}: {document['state']}{since}{how}")
    probes = {each["service"]: each["said"] for each in document["probes"]}
    for forward in document["forwards"]:
        service = forward["service"]
        click.echo(f"   {service:<10} {forward['local']} -> {forward['remote']}  {probes.get(service, '')}")
    connections, moved = document["connections"], document["bytes"]
    click.echo(
        f"   reconnects {document['reconnects']}, connections {connections['open']} open of "
        f"{connections['total']}, {moved['up']} bytes up, {moved['down']} bytes down"
    )
    if document.get("last_refusal"):
        click.echo(f"   {connections['refused']} refused, the last: {document['last_refusal']}")
    if document["last_error"]:
        click.echo(f"   last error {document['last_error_at']}: {document['last_error']}")


@tunnel.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the known hosts and the tunnels that exist.

    \b
    Examples:
      stackctl tunnel list
      stackctl tunnel list --json
    """
    from stackctl.tunnel import hosts, state

    known = hosts.all_hosts(ctx.obj["stack_file"])
    rows = []
    for name in sorted({*known, *state.names()}):
        document = state.read(name)
        entry = known.get(name)
        rows.append(
            {
                "name": name,
                "destination": str(entry.destination) if entry else (document or {}).get("destination", ""),
                "configured": entry is not None,
                "state": document["state"] if document else "down",
                "forwards": document["forwards"] if document and document["pid"] else [],
            }
        )
    if as_json:
        click.echo(json.dumps({"schema": "stackctl.tunnel-list/1", "tunnels": rows}, indent=1))
        return
    for row in rows:
        ports = ", ".join(f"{f['service']} {f['local']}" for f in row["forwards"])
        click.echo(f"{row['name']:<16} {row['state']:<12} {row['destination']:<28} {ports}".rstrip())


@tunnel.command()
@click.argument("host")
@click.option("-n", "--lines", default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.pass_context
def logs(ctx: click.Context, host: str, lines: int, follow: bool) -> None:
    """Print what a tunnel has logged.

    \b
    Examples:
      stackctl tunnel logs lab -f
    """
    from stackctl.tunnel import logfile

    with contextlib.suppress(KeyboardInterrupt):
        try:
            for text in logfile.read(logfile.path(_name(ctx, host)), lines, follow=follow):
                click.echo(text, nl=False)
        except FileNotFoundError:
            raise StackctlError(f"the tunnel '{host}' has no log", fix=f"stackctl tunnel up {host}") from None


@tunnel.command()
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask: the fingerprint was compared already.")
@click.option("--fingerprint", metavar="SHA256:…", help="Trust the key only if it has this fingerprint.")
@click.pass_context
def trust(ctx: click.Context, host: str, yes: bool, fingerprint: str | None) -> None:
    """Show a host's key and, after a yes, add it to known_hosts.

    \b
    Examples:
      stackctl tunnel trust lab
    """
    from stackctl.tunnel import hosts
    from stackctl.tunnel import trust as trusting

    key = trusting.look(hosts.find(host, ctx.obj["stack_file"]))
    click.echo(f"{key.name} {key.kind} {key.fingerprint}")
    if key.state == "known":
        click.echo("this key is trusted already", err=True)
        return
    if fingerprint is not None:
        if fingerprint != key.fingerprint:
            raise PreflightError(f"the host shows {key.fingerprint}, not {fingerprint}: nothing was added")
    elif not yes:
        if not sys.stdin.isatty():
            raise PreflightError(
                "nothing was added: there is no terminal to ask on",
                fix=f"stackctl tunnel trust {host} --fingerprint {key.fingerprint}",
            )
        click.confirm("Is this the host's fingerprint? Add the key", abort=True, err=True)
    trusting.accept(key)
    click.echo(f"added to {key.file}", err=True)


@tunnel.command("open")
@click.argument("host")
@click.pass_context
def open_(ctx: click.Context, host: str) -> None:
    """Bring the tunnel up if it is down, then open the web UI in the browser.

    \b
    Examples:
      stackctl tunnel open lab
    """
    from stackctl.tunnel import state

    document = state.read(_name(ctx, host))
    if document is None or not document["pid"]:
        ctx.invoke(up, host=host)
        document = state.read(_name(ctx, host))
    address = _address(document, "webui", host)
    import webbrowser

    click.echo(f"http://{address}")
    if not webbrowser.open(f"http://{address}"):
        raise StackctlError("no browser could be started", fix=f"open http://{address} yourself")


@tunnel.command()
@click.argument("host")
@click.pass_context
def env(ctx: click.Context, host: str) -> None:
    """Print shell lines that point SDKs and the ollama command at the tunnel.

    \b
    Examples:
      eval "$(stackctl tunnel env lab)"
    """
    from stackctl.tunnel import state

    document = state.read(_name(ctx, host))
    if document is None or not document["pid"]:
        raise StackctlError(f"the tunnel '{host}' is not up", fix=f"stackctl tunnel up {host}")
    local = {forward["service"]: forward["local"] for forward in document["forwards"]}
    api = local.get("gateway") or local.get("engine")
    if api is None:
        raise StackctlError(
            f"the tunnel '{host}' forwards no API ({', '.join(local) or 'nothing'})",
            fix=f"stackctl tunnel down {host} && stackctl tunnel up {host} engine",
        )
    click.echo(f"export OPENAI_BASE_URL=http://{api}/v1")
    click.echo(f"export OLLAMA_HOST=http://{local.get('engine', api)}")


@tunnel.command()
@click.argument("host")
@click.argument("services", nargs=-1)
@click.option("--print", "only_print", is_flag=True, help="Print the unit, write nothing.")
@click.pass_context
def install(ctx: click.Context, host: str, services: tuple[str, ...], only_print: bool) -> None:
    """Install a systemd user unit that keeps the tunnel up, and start it (again, when it is installed).

    \b
    Examples:
      stackctl tunnel install lab --print
    """
    from stackctl.tunnel import hosts, unit

    stack_file = ctx.obj["stack_file"]
    found = hosts.find(host, stack_file)
    if stack_file is None and hosts.in_stack_here(host):
        stack_file = "stack.yaml"  # the unit does not start in this folder
    text = unit.render(found.name, services, stack_file)
    if only_print:
        click.echo(text, nl=False)
        return
    path, outcome = unit.install(found.tunnel_name, text)
    click.echo(f"{path}: enabled and started, {outcome}", err=True)


@tunnel.command()
@click.argument("host")
@click.pass_context
def uninstall(ctx: click.Context, host: str) -> None:
    """Take an installed tunnel down, and remove its unit.

    \b
    Examples:
      stackctl tunnel uninstall lab
    """
    from stackctl.tunnel import unit

    name = _name(ctx, host)
    path = unit.unit_path(name)
    if not unit.uninstall(name):
        raise StackctlError(f"the tunnel '{host}' is not installed: there is no {path}")
    click.echo(f"{path}: removed", err=True)


def _name(ctx: click.Context, host: str) -> str:
    from stackctl.tunnel import hosts

    return hosts.find(host, ctx.obj["stack_file"]).tunnel_name


def _address(document: dict[str, Any] | None, service: str, host: str) -> str:
    for forward in (document or {"forwards": []})["forwards"]:
        if forward["service"] == service:
            return str(forward["local"])
    raise StackctlError(
        f"the tunnel '{host}' does not forward {service}",
        fix=f"stackctl tunnel down {host} && stackctl tunnel up {host} {service}",
    )

"""From what was asked for to a TunnelSpec: which services, which local ports."""

from __future__ import annotations

from dataclasses import replace

from stackctl.errors import PreflightError
from stackctl.tunnel import discover
from stackctl.tunnel.errors import PermanentTunnelError, TunnelError
from stackctl.tunnel.forwarder import Forward
from stackctl.tunnel.hosts import Host, pick_services
from stackctl.tunnel.ports import is_free, who_holds
from stackctl.tunnel.supervisor import TunnelSpec


def forwards_for(host: Host, wanted: tuple[str, ...], *, persist: bool) -> tuple[tuple[Forward, ...], str]:
    """The forwards, and how they are known. A tunnel that is to persist does not wait for the host to say."""
    if host.entry.forward:
        entries = host.entry.forward
        usual = discover.USUAL_PORTS
        ports = {name: entry.remote or usual.get(name) or entry.local or 0 for name, entry in entries.items()}
        chosen = pick_services(ports, wanted, host.name)
        return tuple(
            Forward(name, entries[name].local, port, entries[name].host) for name, port in chosen.items()
        ), "as configured"
    try:
        found, why = discover.services(host)
    except PermanentTunnelError:
        raise
    except TunnelError as error:
        found = discover.without_asking(host)
        if not persist or not found.keys() >= set(wanted):
            raise
        if not wanted:
            found = discover.last_forwarded(host) or found
        why = f"as the last time, or as usual, because {error.what}"
    chosen = pick_services(found, wanted, host.name)
    return tuple(Forward(name, port, port) for name, port in chosen.items()), why


def with_free_ports(forwards: tuple[Forward, ...], free: bool) -> tuple[Forward, ...]:
    """Refuse a taken local port, naming who has it; or, if allowed, let the kernel choose another."""
    chosen = []
    for forward in forwards:
        if forward.local_port and not is_free(forward.local_host, forward.local_port):
            if not free:
                raise PreflightError(
                    f"local port {forward.local_port} for {forward.service} is taken "
                    f"by {who_holds(forward.local_port)}",
                    fix="add --free-ports to use another, or give the service a port: --port "
                    f"{forward.service}=PORT",
                )
            forward = replace(forward, local_port=0)
        chosen.append(forward)
    return tuple(chosen)


def with_ports(forwards: tuple[Forward, ...], ports: dict[str, int]) -> tuple[Forward, ...]:
    return tuple(replace(f, local_port=ports.get(f.service, f.local_port)) for f in forwards)


def spec_for(host: Host, forwards: tuple[Forward, ...], *, persist: bool) -> TunnelSpec:
    entry = host.entry
    return TunnelSpec(
        name=host.tunnel_name,
        destination=host.destination,
        forwards=forwards,
        config_file=entry.ssh_config,
        transport=entry.transport,
        interval=entry.interval,
        hold=entry.hold,
        persist=persist,
    )

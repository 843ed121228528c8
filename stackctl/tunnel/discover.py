"""Which services a host offers, when no entry says so: the host's own stackctl is asked."""

from __future__ import annotations

import json
import logging
from typing import Any

from stackctl.hosts import remote
from stackctl.tunnel import state
from stackctl.tunnel.errors import AuthError, HostKeyError
from stackctl.tunnel.hosts import Host

log = logging.getLogger("stackctl.tunnel")

#: Where the services are unless a stack file says otherwise.
USUAL_PORTS = {"engine": 11434, "gateway": 8800, "webui": 3000}
TIMEOUT = 20.0


def services(host: Host) -> tuple[dict[str, int], str]:
    """Service and port on the host, and how that is known."""
    try:
        answer = remote.ask(host, [*remote.program(host), "status", "--json"], timeout=TIMEOUT)
    except HostKeyError:
        raise
    except AuthError:
        return USUAL_PORTS, "the usual ports, because the host cannot be asked without a password"
    usual = "the usual ports, because"
    try:
        document: Any = json.loads(answer.out)
        found = _published(document)
    except (ValueError, TypeError, KeyError, AttributeError):
        said = (answer.err.strip().splitlines() or [f"exit {answer.code}"])[0].removeprefix("error: ")
        if answer.code in (126, 127):
            return USUAL_PORTS, f"{usual} no stackctl is there"
        return USUAL_PORTS, f"{usual} stackctl there says: {said}"
    if found:
        return found, "as the stack there says"
    return USUAL_PORTS, f"{usual} no service of the stack there is up"


def without_asking(host: Host) -> dict[str, int]:
    return USUAL_PORTS | last_forwarded(host)


def last_forwarded(host: Host) -> dict[str, int]:
    document = state.read(host.tunnel_name) or {}
    return {
        forward["service"]: int(forward["remote"].rpartition(":")[2])
        for forward in document.get("forwards", [])
    }


def _published(document: dict[str, Any]) -> dict[str, int]:
    found = {}
    for service in document["services"]:
        ports = [port["host_port"] for port in service.get("ports") or [] if port.get("host_port")]
        if ports:
            found[str(service["name"])] = int(ports[0])
    return found

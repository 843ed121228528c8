"""Is every published socket on loopback? Asked of the runtime and of the kernel, which cannot be fooled."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, ok, skipped

_LISTEN = "0A"


def checks(scene: Scene) -> list[Check]:
    def look(look: Look) -> Result:
        if scene.plan.expose == "lan":
            return skipped("expose: lan is written in the stack file")
        found = scene.status()
        open_ = {
            f"{service.name}: {port.host_ip}:{port.host_port}"
            for service in found.services
            for port in service.ports
            if not _loopback(port.host_ip)
        }
        ours = {service.port: service.name for service in scene.plan.services}
        for address, port in listening():
            if port in ours and not _loopback(address):
                open_.add(f"{ours[port]}: {address}:{port}")
        count = sum(len(service.ports) for service in found.services)
        if open_:
            worst = ", ".join(sorted(open_))
            return Result(Status.CRITICAL, f"reachable from the network: {worst}", memory={})
        return ok(f"{count} published ports, all on loopback")

    return [
        Check(
            id="ports",
            title="Ports are on loopback",
            looks_at="the host address of every published port, and the kernel's listening sockets",
            why="a port on 0.0.0.0 is open to the network, and Docker's rules go past ufw",
            do="stackctl up renders the ports again; expose: lan in stack.yaml if it is meant",
            run=look,
            needs=("runtime",),
            fail_after=1,
        )
    ]


def listening() -> Iterator[tuple[str, int]]:
    """Addresses and ports of all listening TCP sockets of this network namespace."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN:
                address, port = columns[1].split(":")
                yield _address(address, family), int(port, 16)


def _address(text: str, family: socket.AddressFamily) -> str:
    # The kernel prints 32-bit words in host order.
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback

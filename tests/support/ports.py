"""Ports for servers of tests, which nobody else takes between the choice and the bind.

A port that the kernel chooses (bind to 0, close, use the number) is one that it may give to any outgoing
connection a moment later, and two test processes may be told the same one. These come from below the range
of outgoing connections, and the process that chose one keeps it for its life (claims.py).
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tests.support.claims import claim

_LOWEST = 20000


def free_port(host: str = "127.0.0.1") -> int:
    for _ in range(1000):
        port = random.randrange(_LOWEST, _outgoing())
        if claim("ports", port) and _binds(host, port):
            return port
    raise AssertionError(f"no free port from {_LOWEST} to {_outgoing()}")


def _outgoing() -> int:
    """Where the ports of outgoing connections begin."""
    try:
        return max(_LOWEST + 1000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except OSError:
        return 32768


def _binds(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True

"""Who holds a TCP port of this host, as far as this user may see; whether it can be listened on; and one that
is free."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def free_port() -> int:
    """Free on loopback now, for a service that listens in a moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Refusal:
    reason: str  # the kernel's
    forbidden: bool = False  # nobody has it, and this user may not


def refusal(address: str, port: int) -> Refusal | None:
    """Why nobody could listen there now, or this user could not."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError as error:
            # Below 1024 the kernel says so before it looks whether somebody listens.
            if is_listened_on(address, port):
                return Refusal(os.strerror(errno.EADDRINUSE))
            return Refusal(error.strerror or str(error), forbidden=True)
        except OSError as error:
            return Refusal(error.strerror or str(error))
    return None


def is_listened_on(address: str, port: int) -> bool:
    return any(_listening(table, port, address) for table in TABLES)


def holder_of(port: int) -> str | None:
    """`name (pid 123)`, or None when nobody does or the process is hidden from us."""
    inodes = {inode for table in TABLES for inode in _listening(table, port)}
    if not inodes:
        return None
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            for handle in os.scandir(f"/proc/{entry}/fd"):
                if os.readlink(handle.path) in inodes:
                    name = Path(f"/proc/{entry}/comm").read_text().strip()
                    return f"{name} (pid {entry})"
        except OSError:
            continue
    return None


def _listening(table: str, port: int, address: str | None = None) -> set[str]:
    """Inodes of the sockets that listen on the port; with an address, of those in the way of it alone."""
    found: set[str] = set()
    try:
        lines = Path(table).read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        host, _, number = fields[1].rpartition(":")
        if fields[3] == "0A" and int(number, 16) == port and (address is None or _meet(host, address)):
            found.add(f"socket:[{fields[9]}]")
    return found


def _meet(listed: str, address: str) -> bool:
    """Of the kernel's form: each four bytes as a number of this machine's byte order."""
    words = [bytes.fromhex(listed[at : at + 8]) for at in range(0, len(listed), 8)]
    there = ipaddress.ip_address(
        b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    )
    wanted = ipaddress.ip_address(address)
    mapped = getattr(there, "ipv4_mapped", None) or there
    return there.is_unspecified or wanted.is_unspecified or mapped == wanted

"""What the processes of one session use, read from /proc."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    memory: int  # bytes that the kernel cannot drop: pages of a mapped model are left out
    tasks: int
    cpu_seconds: float  # of those that live now


def session_members(session: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = _stat(entry)
        except OSError:
            continue  # it ended while we looked
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry))
    return found


def of_session(session: int) -> Usage:
    memory = tasks = 0
    ticks = 0
    for pid in session_members(session):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith(("RssAnon:", "RssShmem:")):
                        memory += int(line.split()[1]) * 1024
                    elif line.startswith("Threads:"):
                        tasks += int(line.split()[1])
            ticks += sum(int(field) for field in _stat(pid)[11:13])
        except OSError:
            continue
    return Usage(memory, tasks, ticks / os.sysconf("SC_CLK_TCK"))


def start_time(pid: int) -> int | None:
    """Clock ticks since boot: with the pid it names a process for good, whoever gets the number later. None
    when it has ended, also while nobody has asked yet how it did."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def listening(session: int) -> list[tuple[str, int]]:
    """Addresses and TCP ports on which the processes of a session really listen."""
    sockets: dict[str, tuple[str, int]] = {}
    found: set[tuple[str, int]] = set()
    for pid in session_members(session):
        if not sockets:
            sockets = _listeners(pid)
        try:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                if (place := sockets.get(os.readlink(entry.path))) is not None:
                    found.add(place)
        except OSError:
            continue  # it ended while we looked, or is not ours to look into
    return sorted(found, key=lambda place: (place[1], place[0]))


def _listeners(pid: int) -> dict[str, tuple[str, int]]:
    """`socket:[inode]` -> address and port, in the network that the process is in."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                found[f"socket:[{fields[9]}]"] = (_address(address), int(port, 16))
    return found


def _address(written: str) -> str:
    """The kernel prints each word of four bytes in the order of the processor."""
    words = [bytes.fromhex(written[at : at + 8]) for at in range(0, len(written), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _stat(pid: int | str) -> list[str]:
    """The fields after the name, which may hold blanks and brackets; the state is the first."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()

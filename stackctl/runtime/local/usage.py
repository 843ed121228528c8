"""What the processes of one session use, read from /proc."""

from __future__ import annotations

import os
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
    """Clock ticks since boot: with the pid it names a process for good, whoever gets the number later."""
    try:
        return int(_stat(pid)[19])
    except OSError:
        return None


def _stat(pid: int | str) -> list[str]:
    """The fields after the name, which may hold blanks and brackets; the state is the first."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()

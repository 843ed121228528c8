"""Who holds a TCP port of this host, as far as this user may see."""

from __future__ import annotations

import os
from pathlib import Path


def holder_of(port: int) -> str | None:
    """`name (pid 123)`, or None when nobody does or the process is hidden from us."""
    inodes = {inode for table in ("/proc/net/tcp", "/proc/net/tcp6") for inode in _listening(table, port)}
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


def _listening(table: str, port: int) -> set[str]:
    found: set[str] = set()
    try:
        lines = Path(table).read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found

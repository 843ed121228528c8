"""Who holds a local port: so that "address already in use" can name the program."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

_LISTEN = "0A"


def who_holds(port: int) -> str:
    """`python3 (pid 4242)`, or the best that can be said without being root."""
    inodes = _listening_inodes(port)
    if inodes is None:
        return _ask_lsof(port)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _owns(process, inodes):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            return f"{name} (pid {process.name})"
    return "a program of another user" if inodes else "a program that has just gone"


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def _listening_inodes(port: int) -> set[str] | None:
    found: set[str] = set()
    seen = False
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        seen = True
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found if seen else None


def _owns(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in inodes for entry in (process / "fd").iterdir())
    except OSError:
        return False


def _ask_lsof(port: int) -> str:
    try:
        done = subprocess.run(
            ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "another program"
    said = {line[:1]: line[1:] for line in done.stdout.splitlines()}
    return f"{said['c']} (pid {said['p']})" if {"p", "c"} <= said.keys() else "another program"

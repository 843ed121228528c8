"""An append-only record of everything that changed a stack: one JSON object a line in `audit.jsonl`."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from stackctl import paths
from stackctl.redact import redacted


def record(
    stack: str,
    action: str,
    *,
    result: str,
    duration: float = 0.0,
    generation_from: int | None = None,
    generation_to: int | None = None,
    **details: Any,
) -> None:
    """Write one line, and be sure that it is on disk."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.geteuid())
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": user,
        "sudo_user": os.environ.get("SUDO_USER"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "argv": [redacted(argument) for argument in sys.argv[1:]],
        "action": action,
        "from": generation_from,
        "to": generation_to,
        "result": result,
        "duration": round(duration, 3),
        **details,
    }
    line = redacted(json.dumps(entry, default=str)) + "\n"
    folder = paths.state_dir(stack)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "audit.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(stack: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The newest last; a line that a crash cut short is left out."""
    path = paths.state_dir(stack) / "audit.jsonl"
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found[-limit:] if limit else found

"""An append-only record of everything that changed a stack: one JSON object a line in `audit.jsonl`."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import paths
from stackctl.redact import redacted_values


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
    """Write one line, and be sure that it is on disk. A disk that is full is said, and changes no outcome."""
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
        "argv": sys.argv[1:],
        "action": action,
        "from": generation_from,
        "to": generation_to,
        "result": result,
        "duration": round(duration, 3),
        **details,
    }
    try:
        _append(paths.state_dir(stack), json.dumps(redacted_values(entry)).encode() + b"\n")
    except OSError as error:
        # What was done stays done; and an error of the action itself must not be hidden by this one.
        with contextlib.suppress(OSError):
            print(f"warning: not in the audit log: {action}: {error.strerror}", file=sys.stderr)


@contextlib.contextmanager
def recording(stack: str, action: str, **known: Any) -> Iterator[dict[str, Any]]:
    """One line about the block, however it ends. What is learnt on the way is put into the dictionary."""
    started, outcome = time.monotonic(), "ok"
    try:
        yield known
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
        raise
    finally:
        record(stack, action, result=outcome, duration=time.monotonic() - started, **known)


def _append(folder: Path, line: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "audit.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # a power cut: it must not swallow ours
        os.write(handle, b"\n" + line if torn else line)
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
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found[-limit:] if limit else found

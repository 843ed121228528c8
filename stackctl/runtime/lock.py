"""One stackctl at a time works on a stack.

The lock is the kernel's (`flock`): a process that is killed lets go of it, so it never has to be broken by
hand. The holder writes who it is into the file for others to show. It may be taken again inside itself, and
by the commands it starts (hooks, procedures): those find its pid in STACKCTL_LOCK_HOLDER.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import paths
from stackctl.errors import LockHeldError
from stackctl.redact import redacted
from stackctl.runtime.local import usage

_held: dict[str, int] = {}


def lock_file(stack: str) -> Path:
    return paths.state_dir(stack) / "lock"


def holder(stack: str) -> dict[str, Any] | None:
    """Who holds the lock now, or None.

    Told by what the holder wrote, and by whether that very process still lives: to try the lock would make a
    look at the stack refuse the change that begins at the same moment.
    """
    try:
        found = _read(lock_file(stack).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    pid = found.get("pid")
    if not isinstance(pid, int) or usage.start_time(pid) is None:
        return None
    # A holder of an older version did not write when it started.
    return found if usage.start_time(pid) == found.get("started", usage.start_time(pid)) else None


@contextmanager
def stack_lock(stack: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the stack's lock; LockHeldError (with the holder) when another has it for longer than `wait`
    seconds."""
    if _held.get(stack) or _inherited(stack):
        _held[stack] = _held.get(stack, 0) + 1
        try:
            yield
        finally:
            _held[stack] -= 1
        return
    path = lock_file(stack)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+") as file:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _refusal(stack, path) from None
                time.sleep(0.05)
        who = {
            "pid": os.getpid(),
            "started": usage.start_time(os.getpid()),
            "user": _user(),
            "host": socket.gethostname(),
            "command": redacted(" ".join(["stackctl", *sys.argv[1:]])),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(file.fileno(), 0)
        with contextlib.suppress(OSError):  # a full disk: it is held all the same, and makes room be made
            os.write(file.fileno(), json.dumps(who).encode() + b"\n")
        _held[stack] = 1
        os.environ["STACKCTL_LOCK_HOLDER"] = f"{stack}:{os.getpid()}"
        try:
            yield
        finally:
            _held.pop(stack, None)
            os.environ.pop("STACKCTL_LOCK_HOLDER", None)
            os.ftruncate(file.fileno(), 0)


def _inherited(stack: str) -> bool:
    """Our parent holds the lock and started us: checked against the file, so that a stale variable opens
    nothing."""
    name, _, pid = os.environ.get("STACKCTL_LOCK_HOLDER", "").partition(":")
    if name != stack or not pid.isdigit() or int(pid) == os.getpid():
        return False
    found = holder(stack)
    return found is not None and found.get("pid") == int(pid)


def _refusal(stack: str, path: Path) -> LockHeldError:
    found = _read(path.read_text())
    if not found:
        return LockHeldError(f"stack {stack} is locked by another stackctl", fix="wait until it is done")
    return LockHeldError(
        f"stack {stack} is locked since {found.get('since')} by {found.get('user')}@{found.get('host')}: "
        f"{found.get('command')} (pid {found.get('pid')})",
        fix=f"wait until it is done, or end it: kill {found.get('pid')}",
    )


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())

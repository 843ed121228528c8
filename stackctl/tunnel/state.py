"""What a running tunnel leaves on disk: a lock that proves it runs, its state, and its log.

The lock is the truth: the kernel frees it when the process dies, however it dies, so a state file without a
lock is the trace of a tunnel that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackctl.errors import LockHeldError, StackctlError
from stackctl.paths import state_root

SCHEMA = "stackctl.tunnel/1"


def folder(name: str) -> Path:
    return state_root() / "tunnels" / name.replace("/", "_")


def names() -> list[str]:
    """The tunnels that run, ended or died, as far as their state has not been cleared."""
    return sorted(path.parent.name for path in (state_root() / "tunnels").glob("*/state.json"))


class TunnelLock:
    """Held by the process that runs the tunnel, for as long as it lives."""

    def __init__(self, name: str) -> None:
        self._path = folder(name) / "lock"
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = open(self._path, "a+")  # noqa: SIM115 - open for the life of the process
        # Whoever asks `holder` has the lock for a moment: that is no reason to give up.
        if not any(self._try() for _ in _until(0.5)):
            self._file.close()
            raise LockHeldError(
                f"the tunnel '{name}' is up already (pid {holder(name) or 'unknown'})",
                fix=f"stackctl tunnel status {name}",
            )
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        self._file.close()


def holder(name: str) -> int | None:
    """The pid of the running tunnel, or None when none runs."""
    try:
        with open(folder(name) / "lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else None
    except OSError:
        return None
    return None


def write(name: str, document: dict[str, Any]) -> None:
    path = folder(name) / "state.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".state.{os.getpid()}")
    temporary.write_text(json.dumps({"schema": SCHEMA, **document}, indent=1) + "\n")
    temporary.replace(path)


def read(name: str) -> dict[str, Any] | None:
    """The last state; a tunnel that died without saying so is `died`.

    None when there is nothing that this version can read: it is then as if there had been no tunnel.
    """
    try:
        document = json.loads((folder(name) / "state.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    pid = holder(name)
    if pid is None:
        if document.get("state") not in ("stopped", "failed"):
            document["state"] = "died"
    elif pid != document.get("pid"):
        # The file is the last tunnel's; the one that has the lock now has not written its own yet.
        document |= {"state": "connecting", "since": None, "forwards": [], "notes": [], "last_error": ""}
    document["pid"] = pid
    return document


def forget(name: str) -> bool:
    """Remove the state of a tunnel that does not run; its log stays. False when there was none."""
    # The lock file stays, too: whoever opens it now must find the same file as whoever holds it.
    try:
        (folder(name) / "state.json").unlink()
    except OSError:
        return False
    return True


def stop(name: str, timeout: float = 10.0) -> bool:
    """End the running tunnel and wait until it is gone; False when none runs."""
    if holder(name) is None:
        return False
    for number, wait in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        # Asked for again each time: only the pid of whoever holds the lock now is signalled.
        pid = holder(name)
        if pid is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if any(holder(name) is None for _ in _until(wait)):
            return True
    raise StackctlError(f"the tunnel '{name}' (pid {holder(name)}) does not end")


def _until(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)

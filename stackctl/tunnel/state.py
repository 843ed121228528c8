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
    root = state_root() / "tunnels"
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


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
    """The last state; a tunnel that died without saying so is `died`."""
    try:
        document = json.loads((folder(name) / "state.json").read_text())
    except (OSError, ValueError):
        return None
    assert isinstance(document, dict)
    if holder(name) is None:
        if document.get("state") not in ("stopped", "failed"):
            document["state"] = "died"
        document["pid"] = None
    return document


def forget(name: str) -> None:
    for child in ("state.json", "lock"):
        with contextlib.suppress(OSError):
            (folder(name) / child).unlink()


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

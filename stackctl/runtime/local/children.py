"""Who the services' processes are, written down for whoever comes after a supervisor that was killed.

The kernel ends a killed supervisor's services; one that is deaf to that is ended by the next start, or by
`down`. A pid that now belongs to another process is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from stackctl.runtime.local import usage

SUPERVISOR = "supervisor.pid"


class Children:
    def __init__(self, state: Path) -> None:
        self._file = state / "children.json"
        self._written = ""

    def remember(self, pids: Iterable[tuple[str, int]]) -> None:
        """A full disk is no reason to stop: the kernel ends the services all the same."""
        text = json.dumps({name: [pid, usage.start_time(pid)] for name, pid in pids})
        if text == self._written:
            return
        aside = self._file.with_name(".children.json")
        with contextlib.suppress(OSError):
            aside.write_text(text)
            aside.rename(self._file)
            self._written = text

    def end(self) -> None:
        for pid, started in _pairs(self._file):
            # Whether the first of the session has ended says nothing of the others in it.
            if started is None or usage.start_time(pid) not in (started, None):
                continue
            for member in usage.session_members(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)


def introduce(state: Path) -> None:
    """Write down who the supervisor is."""
    with contextlib.suppress(OSError):
        (state / SUPERVISOR).write_text(
            json.dumps({"supervisor": [os.getpid(), usage.start_time(os.getpid())]})
        )


def supervisor(state: Path) -> int | None:
    """The pid of a supervisor that lives, whether it answers or not."""
    for pid, started in _pairs(state / SUPERVISOR):
        if started is not None and usage.start_time(pid) == started:
            return pid
    return None


def _pairs(file: Path) -> list[tuple[int, int | None]]:
    try:
        return [(int(pid), started) for pid, started in json.loads(file.read_text()).values()]
    except (OSError, ValueError, TypeError, AttributeError):
        return []

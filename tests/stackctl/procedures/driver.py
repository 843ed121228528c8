"""Runs a page in a process of its own, which may kill itself with SIGKILL right after the Nth journal line.

python driver.py PAGE RUNS start|resume|undo [KILL_AFTER]
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stackctl.procedures import document, use
from stackctl.procedures.journal import Journal
from stackctl.procedures.people import Person


def drive(page: Path, runs: Path, mode: str, kill_after: int | None, say: Callable[[str], None]) -> int:
    written = 0
    append = Journal.append

    def append_and_die(self: Journal, event: str, **fields: Any) -> None:
        nonlocal written
        append(self, event, **fields)
        written += 1
        if written == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append_and_die  # type: ignore[method-assign]
    procedure = document.load(page)
    person = Person(say=say)
    if mode == "start":
        return use.start(procedure, {}, None, runs, person).exit_code
    return use.go_on(procedure, {}, None, runs, person, undo=mode == "undo").exit_code


if __name__ == "__main__":
    kill_after = int(sys.argv[4]) if len(sys.argv) > 4 else None
    sys.exit(
        drive(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], kill_after, lambda t: print(t, flush=True))
    )

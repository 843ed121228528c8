"""`stackctl` that kills itself with SIGKILL right after the Nth journalled end of a step.

python driver.py N stackctl-arguments...
"""

import os
import signal
import sys
from typing import Any

from stackctl.cli.main import main
from stackctl.procedures.journal import Journal

BORDERS = ("step.done", "step.skipped", "step.not-needed")


def drive(kill_after: int, argv: list[str]) -> None:
    passed = 0
    append = Journal.append

    def append_and_die(self: Journal, event: str, **fields: Any) -> None:
        nonlocal passed
        append(self, event, **fields)
        passed += event in BORDERS
        if event in BORDERS and passed == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append_and_die  # type: ignore[method-assign]
    main(argv)


if __name__ == "__main__":
    drive(int(sys.argv[1]), sys.argv[2:])

"""Starts services that rested for a copy; run by `stackctl.runtime.guardian`, also after a kill.

python -m stackctl.backup.waking STACK_FILE OVERLAY SERVICE...   (OVERLAY may be empty)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stackctl.config import load_with_origins
from stackctl.errors import StackctlError
from stackctl.operations.context import Stack, open_stack


def command(stack: Stack, services: Sequence[str]) -> list[str]:
    main = str(stack.loaded.files[0])
    return [sys.executable, "-m", "stackctl.backup.waking", main, stack.loaded.overlay or "", *services]


def wake(stack_file: str, overlay: str, services: Sequence[str]) -> int:
    try:
        open_stack(load_with_origins(stack_file, overlay or None)).runtime.start(services)
    except StackctlError as error:
        print(f"{', '.join(services)}: {error.what}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(wake(sys.argv[1], sys.argv[2], sys.argv[3:]))

"""A command that is carried out when a piece of work is over, also when the work was killed.

What is paused or stopped for a copy must not stay so because the copy was cut off: `finally` does not run
after `kill -9`. So a small process of its own waits at the end of a pipe; the kernel closes the pipe when we
end, whichever way.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from stackctl.errors import StackctlError
from stackctl.runtime.command import tail

_WAIT = "import subprocess, sys; sys.stdin.buffer.read(); sys.exit(subprocess.call(sys.argv[1:], stdin=-3))"


@contextlib.contextmanager
def afterwards(argv: Sequence[str], *, timeout: float = 300.0) -> Iterator[None]:
    """`argv` runs once, after the block. StackctlError when it fails, unless the block did already."""
    guardian = subprocess.Popen(
        [sys.executable, "-c", _WAIT, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a Ctrl-C in the terminal, or a kill of our process group, is not for it
    )
    try:
        yield
    except BaseException:
        guardian.communicate(timeout=timeout)
        raise
    _, said = guardian.communicate(timeout=timeout)
    if guardian.returncode != 0:
        raise StackctlError(f"{' '.join(argv[:2])}: exit {guardian.returncode}: {tail(said)}")

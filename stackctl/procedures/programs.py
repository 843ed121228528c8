"""Runs the outside programs that steps name: own process group, bounded output, whole group ended on any
way out.

The group is its own so that Ctrl-C on the terminal reaches stackctl alone, which then stops at a step border.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from stackctl.redact import redacted
from stackctl.runtime.command import log

TAIL_LINES = 40


@dataclass(frozen=True)
class Finished:
    returncode: int
    tail: str


def run(argv: Sequence[str], *, env: Mapping[str, str], shell: bool = False) -> Finished:
    log.info("%s", redacted(argv[0] if shell else shlex.join(argv)))
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", argv[0]] if shell else list(argv),
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        return Finished(127, f"{argv[0]}: program not found")
    except PermissionError:
        return Finished(126, f"{argv[0]}: not allowed to run it")
    tail: deque[bytes] = deque(maxlen=TAIL_LINES)
    assert process.stdout is not None
    reader = threading.Thread(target=_collect, args=(process.stdout, tail), daemon=True)
    reader.start()
    try:
        process.wait()
    finally:
        _end_group(process)
        # A grandchild that escaped the group may hold the pipe: what was read until now is the output.
        reader.join(timeout=1.0)
    return Finished(process.returncode, b"\n".join(tail).decode(errors="replace")[-4096:])


def _collect(stream: IO[bytes], tail: deque[bytes]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            tail.append(line[:2000].rstrip(b"\n"))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

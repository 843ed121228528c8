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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from stackctl.procedures.output import Output
from stackctl.redact import redacted
from stackctl.runtime.command import log

PIECE = 1 << 16


@dataclass(frozen=True)
class Finished:
    returncode: int
    shown: str
    whole: str


def run(argv: Sequence[str], *, env: Mapping[str, str], shell: bool = False) -> Finished:
    log.info("%s", redacted(argv[0]) if shell else shlex.join(map(redacted, argv)))
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
        return _never_ran(127, argv[0], "program not found")
    except PermissionError:
        return _never_ran(126, argv[0], "not allowed to run it")
    output = Output()
    assert process.stdout is not None
    reader = threading.Thread(target=_collect, args=(process.stdout, output), daemon=True)
    reader.start()
    try:
        process.wait()
    finally:
        _end_group(process)
        # A grandchild that escaped the group may hold the pipe: what was read until now is the output.
        reader.join(timeout=1.0)
    output.add(b"", final=True)
    return Finished(process.returncode, output.shown, output.whole)


def _never_ran(code: int, program: str, why: str) -> Finished:
    said = f"{redacted(program)}: {why}"
    return Finished(code, said, said)


def _collect(stream: IO[bytes], output: Output) -> None:
    with contextlib.suppress(ValueError, OSError):
        while piece := os.read(stream.fileno(), PIECE):
            output.add(piece)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

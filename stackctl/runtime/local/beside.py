"""A second engine of the local runtime beside the first: the program of a generation, on a port of its own.

It ends with whoever started it, also by SIGKILL, so nothing is left to remove. It loads from the same folder
of models and takes nothing away from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stackctl.errors import UnhealthyError
from stackctl.runtime.command import clean_environment
from stackctl.runtime.generations import Generation
from stackctl.runtime.local.service import child_setup, signal_session


@contextlib.contextmanager
def engine(generation: Generation, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    body = json.loads(generation.file.read_text())["services"]["engine"]
    argv = [word.replace("{generation}", str(generation.file.parent)) for word in body["argv"]]
    for option, value in (("--host", "127.0.0.1"), ("--port", str(port))):
        argv[argv.index(option) + 1] = value
    gpus = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    # What it does not know it must not tidy up: the models are those of the engine beside it.
    environment = clean_environment({**gpus, **body["environment"], "OLLAMA_NOPRUNE": "1"})
    cpus = _as_many(body["limits"]["cpus"])
    with log.open("w+") as said:
        try:
            process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=lambda: child_setup(cpus),
            )
        except OSError as error:
            raise UnhealthyError(
                f"the second engine cannot be started: {argv[0]}: {error.strerror}"
            ) from error
        try:
            yield process
        finally:
            _end(process)
            log.unlink(missing_ok=True)


def _as_many(limit: float | None) -> frozenset[int]:
    """The engine that serves is bound to so many processors; a fair comparison has as many."""
    mine = sorted(os.sched_getaffinity(0))
    return frozenset(mine[-math.ceil(limit) :]) if limit else frozenset()


def _end(process: subprocess.Popen[bytes]) -> None:
    signal_session(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    signal_session(process.pid, signal.SIGKILL)
    process.wait()

"""Runs `up` again and again in forks of one process: for each of its phases once killed and once interrupted
where the phase begins, then whole.

`python -m tests.stackctl.docker.phases`, in a stack's folder, with the stack file as JSON on stdin;
prints what came of it as JSON. Forks, because importing everything anew for each would be most of the time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from stackctl.cli import main as cli
from stackctl.config import StackConfig

# What `up` does, in order: the function that a phase begins with. The first ones only look.
LOOKING = {
    "host": "stackctl.doctor.checkup:examine",
    "images": "stackctl.runtime.docker.images:inspect",
    "render": "stackctl.operations.up:render",
    "preflight": "stackctl.operations.preflight:check",
}
CHANGING = {
    "folders and secrets": "stackctl.operations.preflight:prepare",
    "write": "stackctl.runtime.generations:GenerationStore.write",
    "create": "stackctl.runtime.docker.runtime:DockerRuntime.up",
    "health": "stackctl.operations.gate:wait_healthy",
    "answer": "stackctl.operations.gate:engine_answers",
    "stability": "stackctl.operations.gate:settle",
    "in force": "stackctl.runtime.generations:GenerationStore.activate",
    "tidy up": "stackctl.operations.preflight:prune_files",
}
PHASES = LOOKING | CHANGING


def cut_at(place: str, number: signal.Signals) -> None:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)

    def cut(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        return original(*arguments, **named)

    setattr(owner, name, cut)


def forked(action: Callable[[], None], log: Path) -> tuple[int, str]:
    """The exit code as a shell's parent sees it, and what was said on stderr."""
    pid = os.fork()
    if pid == 0:
        _child(action, log)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text()


def _child(action: Callable[[], None], log: Path) -> NoReturn:
    with log.open("w") as said, open(os.devnull, "w") as nothing:
        os.dup2(said.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    code = 1
    try:
        action()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def main() -> None:
    document = json.load(sys.stdin)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # All that every fork would import and build for itself.
    for place in PHASES.values():
        importlib.import_module(place.partition(":")[0])
    for name in ("docker", "stackctl.cli.up", "stackctl.render.compose", "stackctl.procedures.use"):
        importlib.import_module(name)
    StackConfig.model_validate(document)

    def up() -> None:
        cli.main(["up"])

    results = {}
    for phase, place in PHASES.items():
        # Something to do anew for each phase that does something.
        document["services"]["engine"]["stable_for"] = "0.2s"  # how long it lasts is not what is tested here
        document["services"]["engine"]["environment"] = {"PHASE": phase if phase in CHANGING else ""}
        Path("stack.yaml").write_text(yaml.safe_dump(document))

        def cut_up(number: signal.Signals, place: str = place) -> None:
            cut_at(place, number)
            up()

        killed, _ = forked(lambda: cut_up(signal.SIGKILL), Path("cut.log"))
        interrupted, _ = forked(lambda: cut_up(signal.SIGINT), Path("cut.log"))
        whole, said = forked(up, Path("whole.log"))
        results[phase] = {"cut": [killed, interrupted], "whole": whole, "said": said}
    print(json.dumps(results))


if __name__ == "__main__":
    main()

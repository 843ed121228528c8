"""CPU of one `stackctl health` run of the default checks on a running stack (local processes, one model
loaded).

The peers are what the same run would start with otherwise: the interpreter with click alone, and the import
of the Docker SDK. The rounds are interleaved; the numbers are medians of user and system time, children
included.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_engine.models.scripted import build

from tests.support.engine import add_model
from tests.support.stacks import PROGRAM, Folder, environment_for, free_port

ROUNDS = 9
BUDGET = 0.5


def cpu(argv: list[str], folder: Folder) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        argv, cwd=folder.path, env=folder.environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = Folder(root / "stack", environment_for(root))
        folder.path.mkdir()
        add_model(folder.path / "data" / "models", "chat", build(root / "chat.gguf", {None: "I am well."}))
        folder.write(
            {
                "runtime": "local",
                "data_dir": str(folder.path / "data"),
                "services": {"engine": {"port": free_port()}},
                "models": ["chat"],
            }
        )
        try:
            folder.ok("up")
            measure(folder)
        finally:
            folder.run("down")


def measure(folder: Folder) -> None:
    commands = {
        "stackctl health": [PROGRAM, "health"],
        "python with click": [sys.executable, "-c", "import click"],
        "python with the docker SDK": [sys.executable, "-c", "import docker"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, argv in commands.items():
            times[name].append(cpu(argv, folder))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, seconds in medians.items():
        ratio = medians["stackctl health"] / seconds
        print(f"{name:<28} {seconds * 1000:7.0f} ms CPU   health is {ratio:.2f} times that")
    print(f"budget of stackctl health: {BUDGET * 1000:.0f} ms")
    if medians["stackctl health"] > BUDGET:
        sys.exit("over the budget")


if __name__ == "__main__":
    main()

"""How fast the command line starts, against a bare interpreter with click; and what rendering costs.

Run: `scripts/bench stackctl`. Rounds are interleaved; the medians of CPU time are compared.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROUNDS = 9
STACKCTL = str(Path(sys.executable).parent / "stackctl")
BARE = [sys.executable, "-c", "import click"]
LARGEST = {
    "name": "bench",
    "runtime": "docker",
    "gpu": {"mode": "none"},
    "services": {
        name: {"enabled": True} for name in ("engine", "webui", "comfyui", "proxy", "prometheus", "grafana")
    },
}


def cpu_seconds(argv: list[str], folder: str) -> float:
    """Of the process and everything that it started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "stack.yaml").write_text(yaml.safe_dump(LARGEST))
        cases = {
            "bare interpreter with click": BARE,
            "stackctl --version": [STACKCTL, "--version"],
            "stackctl --help": [STACKCTL, "--help"],
            "stackctl render, largest shape": [STACKCTL, "render"],
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, argv in cases.items():
                times[name].append(cpu_seconds(argv, folder))
    medians = {name: statistics.median(found) for name, found in times.items()}
    base = medians["bare interpreter with click"]
    for name, median in medians.items():
        print(f"{name:32} {median * 1000:7.1f} ms CPU  {median / base:5.2f} x")
    assert medians["stackctl --version"] < 2.5 * base
    assert medians["stackctl render, largest shape"] < 0.5


if __name__ == "__main__":
    main()

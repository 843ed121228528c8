"""What a machine can run: the `docker`, `browser` and `peer` tests say loudly why they were skipped.

In CI nothing may be skipped for want of a part: REQUIRE_DOCKER=1 and REQUIRE_PEERS=1 turn such a skip
into a failure.
The summary line says how many of each kind ran, so that a green run that ran none can be seen.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections import Counter

import pytest

KINDS = ("docker", "browser", "peer")


@functools.cache
def docker_missing() -> str | None:
    """Why the docker tests cannot run here, or None."""
    if shutil.which("docker") is None:
        return "no docker command on the PATH"
    probe = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode != 0:
        lines = (probe.stderr or probe.stdout).strip().splitlines()
        return f"no Docker Engine answers: {lines[-1] if lines else 'docker info failed'}"
    probe = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)
    return None if probe.returncode == 0 else "the docker compose plugin is missing"


def need_program(name: str) -> str:
    """The path of a peer's program, or a loud skip (a failure under REQUIRE_PEERS)."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        refuse(f"{name} is not installed (scripts/ci-peers installs the peers)", "REQUIRE_PEERS")
    return str(path)


def refuse(reason: str, variable: str) -> None:
    if os.environ.get(variable):
        pytest.fail(f"{reason}, and {variable} is set", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and (reason := docker_missing()):
        refuse(reason, "REQUIRE_DOCKER")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if outcome != "skipped" and report.when != "call":
                continue
            counts.update((kind, outcome) for kind in KINDS if kind in report.keywords)
    for kind in KINDS:
        ran = counts[kind, "passed"] + counts[kind, "failed"]
        terminalreporter.write_line(f"{kind} tests: {ran} ran, {counts[kind, 'skipped']} skipped")

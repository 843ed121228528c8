"""kill -9 of stackctl and a reboot (containers killed) at every step border of an upgrade; on, or back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stackctl.upgrade.conftest import ROOT, Stack, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500)]
Make = Callable[..., Stack]
STEPS = 11
DRIVER = Path(__file__).with_name("driver.py")


def killed_upgrade(stack: Stack, border: int) -> int:
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(border), "upgrade"],
        cwd=stack.folder,
        env={**stack.env, "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        timeout=200,
        check=False,
    )
    return done.returncode


def reboot(stack: Stack) -> None:
    """What a power cut does to containers, and what the engine does to them afterwards."""
    names = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.name}").stdout.split()
    docker("kill", "--signal", "KILL", *names)
    docker("start", *names)


def test_killed_at_every_step_border(make_stack: Make) -> None:
    """Odd borders are gone on from, even ones are taken back; each leaves a stack fit for the next round."""
    stack = make_stack("engine", stability="500ms", probe_tokens=4, min_speed=0)
    stack.up()
    for border in range(1, STEPS + 1):
        old = stack.running_image("engine")
        new = stack.build("engine", "good")
        assert killed_upgrade(stack, border) == -signal.SIGKILL, f"border {border}"
        reboot(stack)
        done = stack.stackctl("upgrade", "--resume" if border % 2 else "--undo")
        assert done.returncode == 0, f"border {border}: {done.stderr}"
        assert stack.running_image("engine") == (new if border % 2 else old), f"border {border}"
    # More generations came than are kept: what a rollback needs is still there.
    assert stack.stackctl("rollback").returncode == 0


def test_rollback_after_a_kill_in_the_middle(make_stack: Make) -> None:
    stack = make_stack("engine", stability="500ms", probe_tokens=4, min_speed=0)
    stack.up()
    old = stack.running_image("engine")
    stack.build("engine", "good")
    assert killed_upgrade(stack, 8) == -signal.SIGKILL, "switched, and not yet proven"
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("engine") == old

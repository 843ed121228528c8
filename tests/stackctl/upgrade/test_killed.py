"""kill -9 of stackctl and a reboot (every container killed) at each step border of an upgrade; then on, or
back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stackctl.upgrade.conftest import ROOT, Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500)]
Make = Callable[..., Stack]
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


def test_rollback_after_a_kill_in_the_middle(make_stack: Make) -> None:
    stack = make_stack("engine", stability="500ms", probe_tokens=4)
    stack.up()
    old = stack.running_image("engine")
    stack.build("engine", "good")
    assert killed_upgrade(stack, 8) == -signal.SIGKILL, "switched, and not yet proven"
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("engine") == old

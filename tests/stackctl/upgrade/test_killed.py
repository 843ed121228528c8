"""kill -9 of stackctl and a reboot (containers killed) at every step border of an upgrade; on, or back."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from stackctl.procedures import locate
from tests.stackctl.upgrade.conftest import Stack, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500)]
Make = Callable[..., Stack]
STEPS = [step.spec.id for step in locate.find("upgrade").steps]
QUICK = {"stability": "500ms", "probe_tokens": 3}


def killed_upgrade(stack: Stack, border: int) -> int:
    return stack.driven(border, "upgrade").returncode


def reboot(stack: Stack) -> None:
    """What a power cut does to containers, and what the engine does to them afterwards."""
    names = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.name}").stdout.split()
    docker("kill", "--signal", "KILL", *names)
    docker("start", *names)


@pytest.mark.parametrize("first", [0, 1])
def test_killed_at_every_step_border(make_stack: Make, first: int) -> None:
    """Two stacks share the borders; on each, going on and taking back take turns."""
    stack = make_stack("engine", **QUICK)
    stack.up()
    for turn, border in enumerate(range(first, len(STEPS), 2)):
        on = turn % 2 == first
        old = stack.running_image("engine")
        new = stack.build("engine", "good")
        assert new != old
        what = f"{'on' if on else 'back'} after step {STEPS[border]}"
        assert killed_upgrade(stack, border + 1) == -signal.SIGKILL, what
        reboot(stack)
        done = stack.stackctl("upgrade", "--resume" if on else "--undo")
        assert done.returncode == 0, f"{what}: {done.stderr}"
        assert stack.running_image("engine") == (new if on else old), what
    assert stack.stackctl("rollback").returncode == 0, "what a rollback needs is still there"


@pytest.mark.parametrize("step", ["switch", "speed"])
def test_rollback_after_a_kill_in_the_middle(make_stack: Make, step: str) -> None:
    stack = make_stack("engine", **QUICK)
    stack.up()
    old = stack.running_image("engine")
    stack.build("engine", "good")
    assert killed_upgrade(stack, STEPS.index(step) + 1) == -signal.SIGKILL, "switched, and not yet in force"
    reboot(stack)
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("engine") == old

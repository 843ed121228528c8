"""Upgrades to images that were built to misbehave: each ends with the old version serving, the data as
before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.stackctl.upgrade.conftest import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
Make = Callable[..., Stack]

# Seconds within which the old version must be back, on a busy two-core machine.
WITHIN = 120.0


BAD = {
    "never-healthy": "not healthy in time",
    "crash-later": "and was started again",
    "nonsense": "answers nonsense",
    "slow": "too slow",
}


def test_every_bad_engine_is_taken_back(make_stack: Make) -> None:
    """One after the other on one stack: going back leaves it fit for the next attempt."""
    stack = make_stack("engine", stability="4s")
    stack.up()
    old = stack.running_image("engine")
    for mode, told in BAD.items():
        bad = stack.build("engine", mode, crash_after=4)
        assert bad != old
        began = time.monotonic()
        # A version that never becomes healthy is given up on at this limit; the others have time enough.
        stack.write(
            stability="4s" if mode == "crash-later" else "1s",
            healthy_within="10s" if mode == "never-healthy" else "60s",
        )
        done = stack.stackctl("upgrade")
        took = time.monotonic() - began
        assert done.returncode == 4, f"{mode}: {done.stderr}"
        assert told in done.stderr, f"{mode}: {done.stderr}"
        assert "went back" in done.stderr
        assert stack.running_image("engine") == old, mode
        assert took < WITHIN, mode
    assert stack.stackctl("status").returncode == 0


def test_a_web_ui_that_migrates_and_dies_leaves_the_data_as_before(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.up()
    old = stack.running_image("webui")
    stack.say("remember me")
    before = stack.said()
    stack.build("webui", "migrate-and-die")
    done = stack.stackctl("upgrade")
    assert done.returncode == 4, done.stderr
    assert stack.running_image("webui") == old
    assert stack.said() == before
    assert list(stack.data.glob("webui.replaced-*")), "what the new version wrote is set aside, not deleted"


def test_a_good_upgrade_is_kept_and_can_be_rolled_back(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.up()
    first = stack.running_image("engine")
    assert stack.stackctl("outdated").returncode == 0
    second = stack.build("engine", "good")
    outdated = stack.stackctl("outdated")
    assert outdated.returncode == 7 and "engine" in outdated.stdout
    done = stack.stackctl("upgrade", "--canary")
    assert done.returncode == 0, done.stderr
    assert "beside the old version" in done.stderr
    assert stack.running_image("engine") == second
    lock = (stack.folder / "stack.lock").read_text()
    assert second in lock
    again = stack.stackctl("upgrade")
    assert again.returncode == 0 and "newest already" in again.stderr, again.stderr
    listed = stack.stackctl("generations")
    assert "current" in listed.stdout and "previous" in listed.stdout
    stack.say("written after the upgrade")
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("engine") == first
    assert stack.said(), "no migration happened, so today's data stays"
    stack.up()
    assert stack.running_image("engine") == first, "stack.lock went back too: up does not upgrade again"


def test_an_unhealthy_stack_is_not_upgraded(make_stack: Make) -> None:
    from tests.stackctl.upgrade.conftest import docker

    stack = make_stack("engine")
    assert stack.stackctl("upgrade").returncode == 3, "nothing is up"
    stack.up()
    docker("stop", "-t", "1", f"{stack.name}-engine-1")
    stack.build("engine", "good")
    done = stack.stackctl("upgrade")
    assert done.returncode == 3 and "not healthy now" in done.stderr, done.stderr

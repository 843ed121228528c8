"""Upgrades to images that were built to misbehave: each ends with the old version serving, the data as
before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stackctl.upgrade.conftest import Stack, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
Make = Callable[..., Stack]

# Seconds within which the old version must be back, on a busy two-core machine.
WITHIN = 90.0

# mode: what is said of it, and the settings that differ. A version that is never healthy is given up on at
# its limit; one that crashes after 20 s is seen because the default stability window is longer than that.
BAD: dict[str, tuple[str, dict[str, str]]] = {
    "never-healthy": ("not healthy in time", {"healthy_within": "8s"}),
    "crash-later": ("and was started again", {"stability": "30s"}),
    "nonsense": ("answers nonsense", {}),
    "slow": ("too slow", {}),
}


@pytest.mark.parametrize("modes", [("never-healthy", "crash-later"), ("nonsense", "slow")])
def test_every_bad_engine_is_taken_back(make_stack: Make, modes: tuple[str, ...]) -> None:
    """One after the other on one stack: going back leaves it fit for the next attempt, and the data that the
    web UI of the new version changes one way is as before."""
    stack = make_stack("engine", "webui")
    stack.up()
    old = {name: stack.running_image(name) for name in stack.services}
    for mode in modes:
        told, settings = BAD[mode]
        stack.say(f"before {mode}")
        before = stack.said()
        bad = {"engine": stack.build("engine", mode), "webui": stack.build("webui", "migrate")}
        assert not set(bad.values()) & set(old.values())
        stack.write(**settings)
        began = time.monotonic()
        done = stack.stackctl("upgrade")
        took = time.monotonic() - began
        assert done.returncode == 4, f"{mode}: {done.stderr}"
        assert told in done.stderr, f"{mode}: {done.stderr}"
        assert "went back" in done.stderr
        assert {name: stack.running_image(name) for name in stack.services} == old, mode
        assert stack.said() == before, f"{mode}: the data is as before, in its old shape"
        assert took < WITHIN, mode
        assert mode != "slow" or "to ask both in turn" in done.stderr, "the verdict is not of one measurement"
    assert stack.stackctl("status").returncode == 0


def test_a_slow_engine_does_not_pass_its_canary(make_stack: Make) -> None:
    stack = make_stack("engine")
    stack.up()
    started = docker("inspect", "--format", "{{.State.StartedAt}}", f"{stack.name}-engine-1").stdout
    stack.build("engine", "slow")
    done = stack.stackctl("upgrade", "--canary")
    assert done.returncode == 4 and "too slow" in done.stderr, done.stderr
    now = docker("inspect", "--format", "{{.State.StartedAt}}", f"{stack.name}-engine-1").stdout
    assert now == started, "the old version was never stopped"
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-canary").stdout == ""


def test_a_canary_is_left_out_where_memory_is_short(make_stack: Make, tmp_path: Path) -> None:
    stack = make_stack("engine")
    stack.up()
    new = stack.build("engine", "good")
    little = tmp_path / "meminfo"
    little.write_text("MemTotal: 900000 kB\nMemAvailable: 100000 kB\n")
    code = (
        "from pathlib import Path; from stackctl.upgrade import canary; "
        "from stackctl.cli.main import main; "
        f"canary.MEMINFO = Path({str(little)!r}); main(['upgrade', '--canary'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=stack.folder, env=stack.env, capture_output=True, text=True,
        timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out: 97.7 MiB of memory are free" in done.stderr, done.stderr
    assert stack.running_image("engine") == new


def test_a_web_ui_that_migrates_and_dies_leaves_the_data_as_before(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.up()
    old = stack.running_image("webui")
    stack.say("remember me")
    before = stack.said()
    stack.build("webui", "migrate-and-die")
    began = time.monotonic()
    done = stack.stackctl("upgrade")
    assert time.monotonic() - began < WITHIN
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
    assert stack.stackctl("down").returncode == 0
    stack.up()
    assert stack.stackctl("generations").stdout == listed.stdout, "down and up are no change of version"
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("engine") == first
    assert stack.said(), "no migration happened, so today's data stays"
    stack.up()
    assert stack.running_image("engine") == first, "stack.lock went back too: up does not upgrade again"


def test_an_unhealthy_stack_is_not_upgraded(make_stack: Make) -> None:
    stack = make_stack("engine")
    assert stack.stackctl("upgrade").returncode == 3, "nothing is up"
    stack.up()
    docker("stop", "-t", "1", f"{stack.name}-engine-1")
    stack.build("engine", "good")
    done = stack.stackctl("upgrade")
    assert done.returncode == 3 and "not healthy now" in done.stderr, done.stderr

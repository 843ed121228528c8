"""What people wrote survives upgrades that were cut off, failed, or were taken back later."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from stackctl.procedures import locate
from tests.stackctl.upgrade.conftest import BASE, Stack, docker
from tests.support.ports import free_port
from tests.support.stacks import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
Make = Callable[..., Stack]
STEPS = [step.spec.id for step in locate.find("upgrade").steps]
QUICK = {"stability": "500ms", "probe_tokens": 3}


def killed_upgrade(stack: Stack, border: int) -> int:
    return stack.driven(str(border), "upgrade").returncode


def reboot(stack: Stack) -> None:
    """What a power cut does to containers, and what the engine does to them afterwards."""
    names = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.name}").stdout.split()
    docker("restart", "--signal", "KILL", "--time", "0", *names)


def texts(stack: Stack) -> list[object]:
    return [row[1] for row in stack.said()]


def test_a_cut_off_upgrade_is_ended_before_another_begins(make_stack: Make) -> None:
    """The version that runs is not the one in force: it is no baseline, and its data is no snapshot."""
    stack = make_stack("engine", "webui", **QUICK)
    stack.up()
    old = {name: stack.running_image(name) for name in stack.services}
    stack.say("before")
    stack.build("engine", "good")
    stack.build("webui", "migrate")
    assert killed_upgrade(stack, STEPS.index("switch") + 1) == -signal.SIGKILL
    reboot(stack)
    for command in (["upgrade"], ["up"], ["run", "rotate-keys"], ["upgrade", "--canary"]):
        refused = stack.stackctl(*command)
        assert refused.returncode == 3 and "was cut off" in refused.stderr, f"{command}: {refused.stderr}"
        assert "stackctl upgrade --resume" in refused.stderr, refused.stderr
    boot = stack.stackctl("up", "--take-back")
    assert boot.returncode == 0, boot.stderr
    assert {name: stack.running_image(name) for name in stack.services} == old
    assert texts(stack) == ["before"] and len(stack.said()[0]) == 2, "the database has its old shape"
    assert stack.stackctl("up", "--take-back").returncode == 0, "nothing is open any more"
    stale = stack.stackctl("upgrade", "--resume")
    assert stale.returncode == 3 and "no run of upgrade is unfinished" in stale.stderr, stale.stderr


def test_chats_of_the_time_of_the_copy_are_not_lost(make_stack: Make) -> None:
    stack = make_stack("engine", "webui", **QUICK)
    stack.up()
    old = stack.running_image("webui")
    stack.build("engine", "nonsense")
    stack.build("webui", "migrate")
    done = stack.driven(f"chat:{stack.ports['webui']}:{stack.database}", "upgrade")
    assert done.returncode == 4 and "nonsense" in done.stderr, done.stderr
    assert stack.running_image("webui") == old
    kept = set(texts(stack))
    before_the_switch = {f"while {step}" for step in STEPS[: STEPS.index("rest")]}
    assert {"while ready", "while fetch", "while copy"} <= before_the_switch
    assert kept == before_the_switch, "all that the old version took, and nothing that the new one did"


def test_rollback_takes_the_data_of_the_version_that_it_goes_back_to(make_stack: Make) -> None:
    """A failed attempt left a copy, too: an older one."""
    stack = make_stack("engine", "webui", **QUICK)
    stack.up()
    old = stack.running_image("webui")
    stack.say("before the failed attempt")
    stack.build("webui", "migrate-and-die")
    assert stack.stackctl("upgrade").returncode == 4
    stack.say("after it")
    stack.build("webui", "migrate")
    done = stack.stackctl("upgrade")
    assert done.returncode == 0, done.stderr
    back = stack.stackctl("rollback")
    assert back.returncode == 0, back.stderr
    assert stack.running_image("webui") == old
    assert texts(stack) == ["before the failed attempt", "after it"]


def test_killed_inside_the_commit(make_stack: Make) -> None:
    """stack.lock and the generation in force say the same in the end: the next command completes the one."""
    stack = make_stack("engine", **QUICK)
    stack.up()
    lock = stack.folder / "stack.lock"
    new = stack.build("engine", "good")
    assert stack.driven("stackctl.operations.lockfile:write", "upgrade").returncode == -signal.SIGKILL
    stack.up()
    assert stack.running_image("engine") == new and new in lock.read_text(), "what had proven itself stays"
    newer = stack.build("engine", "good")
    activating = "stackctl.runtime.generations:GenerationStore.activate"
    assert stack.driven(activating, "upgrade").returncode == -signal.SIGKILL
    assert newer in lock.read_text()
    undone = stack.stackctl("upgrade", "--undo")
    assert undone.returncode == 0, undone.stderr
    stack.up()
    assert stack.running_image("engine") == new and new in lock.read_text()


def test_a_run_that_others_have_overtaken_is_not_gone_on_with(make_stack: Make) -> None:
    stack = make_stack("engine", **QUICK)
    stack.up()
    stack.build("engine", "good")
    assert killed_upgrade(stack, STEPS.index("fetch") + 1) == -signal.SIGKILL
    stack.ports = {"engine": free_port()}
    stack.write(**QUICK)
    stack.up()
    for way in ("--resume", "--undo"):
        stale = stack.stackctl("upgrade", way)
        assert stale.returncode == 3 and "bring-up" in stale.stderr, f"{way}: {stale.stderr}"
    assert "generation 2" in stack.stackctl("status").stdout
    done = stack.stackctl("upgrade")
    assert done.returncode == 0, done.stderr


def test_a_backup_that_is_killed_leaves_nothing_stopped_or_paused(make_stack: Make) -> None:
    stack = make_stack("engine", "webui", **QUICK)
    stack.settings = {"backup": {"consistency": "stop"}}
    stack.write(**QUICK)
    stack.up()
    webui = f"{stack.name}-webui-1"

    def state() -> str:
        return docker("inspect", "--format", "{{.State.Status}}", webui).stdout.strip()

    assert stack.driven("stackctl.backup.create:_data", "backup", "create").returncode == -signal.SIGKILL
    wait_for(lambda: state() == "running", "the web UI works again")
    try:
        docker("volume", "create", stack.name)
        mounted = [
            "run",
            "-d",
            "--name",
            f"{stack.name}-user",
            "-v",
            f"{stack.name}:/data",
            "--entrypoint",
            "",
        ]
        docker(*mounted, BASE, "sleep", "300")
        saved = ["backup", "volume", "save", stack.name, "volume.tar"]
        assert stack.driven("stackctl.backup.volumes:_copy", *saved).returncode == -signal.SIGKILL
        webui = f"{stack.name}-user"
        wait_for(lambda: state() == "running", "the user of the volume works again")
        assert stack.stackctl(*saved).returncode == 0 and state() == "running"
    finally:
        docker("rm", "-f", f"{stack.name}-user", check=False)
        made = docker("ps", "-aq", "--filter", f"volume={stack.name}", check=False).stdout.split()
        docker("rm", "-f", *made, check=False)
        docker("volume", "rm", "-f", stack.name, check=False)

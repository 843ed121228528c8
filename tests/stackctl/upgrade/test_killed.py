"""stackctl gone and the host rebooted at every step border of an upgrade: it can go on, and it can go back.

One upgrade feeds all borders: what a kill would leave on the disk is copied at each, and put back before
each way to go from there. That a kill leaves the same is tried with real ones. What people wrote stays as the
database of the version that serves has it.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest

from stackctl.cli.main import main
from stackctl.procedures import locate
from tests.stackctl.upgrade.conftest import Stack, docker
from tests.stackctl.upgrade.driver import KEPT, own_as

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500)]
Make = Callable[..., Stack]
STEPS = [step.spec.id for step in locate.find("upgrade").steps]
SWITCH, REST = STEPS.index("switch"), STEPS.index("rest")
QUICK = {"stability": "500ms", "probe_tokens": 3}


def reboot(stack: Stack) -> None:
    """What a power cut does to containers, and what the engine does to them afterwards."""
    names = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.name}").stdout.split()
    docker("restart", "--signal", "KILL", "--time", "0", *names)


def stackctl(stack: Stack, *argv: str) -> tuple[int, str]:
    """Exit code and stderr, from a forked process: to start Python 30 times would be most of the time."""
    said = stack.folder / "said"
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            for number, place in ((0, os.devnull), (1, os.devnull), (2, said)):
                os.dup2(os.open(place, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "r+", closefd=False) for n in (0, 1, 2))
            os.chdir(stack.folder)
            os.environ.update(stack.env)
            try:
                main(list(argv))
            except SystemExit as ended:
                code = int(ended.code or 0)
            sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


def put_back(copy: Path, folder: Path) -> None:
    """File by file: what a container has mounted must stay the same file."""
    for name in KEPT:
        if (folder / name).exists() and not (copy / name).exists():
            (folder / name).unlink()
    wanted = {path.relative_to(copy) for path in copy.rglob("*")}
    for top in (name for name in KEPT if (folder / name).is_dir()):
        for path in sorted((folder / top).rglob("*"), reverse=True):
            if path.relative_to(folder) not in wanted:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for one in sorted(wanted):
        source, target = copy / one, folder / one
        if source.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir(exist_ok=True)
            shutil.copystat(source, target)
        elif not target.exists() or not filecmp.cmp(source, target, shallow=False):
            shutil.copyfile(source, target)
            shutil.copystat(source, target)
        own_as(source, target)


@pytest.mark.parametrize(("share", "services"), [(0, ("engine",)), (1, ("engine", "webui"))])
def test_gone_at_every_step_border(make_stack: Make, share: int, services: tuple[str, ...]) -> None:
    """Two stacks share the borders. Their order is such that the containers are always those of the border:
    the old ones before the switch, the new ones after it. One has data that the new version changes one way,
    and asks a canary first."""
    has_data = "webui" in services
    stack = make_stack(*services, **QUICK, canary=has_data)
    stack.up()
    if has_data:
        stack.say("before the upgrade")
    old = {name: stack.running_image(name) for name in services}
    new = {name: stack.build(name, "migrate" if name == "webui" else "good") for name in services}
    copies = stack.folder / "borders"
    done = stack.driven(f"copy:{copies}", "upgrade")
    assert done.returncode == 0, done.stderr
    assert {name: stack.running_image(name) for name in services} == new
    assert ("beside the old version" in done.stderr) == has_data
    assert len(list(copies.iterdir())) == len(STEPS)

    def goes(border: int, way: str) -> None:
        what = f"{way} after step {STEPS[border]}"
        if has_data:
            stack.say(what)
            # What was written since the switch goes with the version that it was written with.
            kept = stack.said()[:1] if border >= SWITCH and way == "--undo" else stack.said()
        put_back(copies / str(border + 1), stack.folder)
        if has_data and border == REST:
            docker("stop", "--time", "1", f"{stack.name}-webui-1")
        reboot(stack)
        code, said = stackctl(stack, "upgrade", way)
        assert code == 0, f"{what}: {said}"
        serves = new if way == "--resume" else old
        assert {name: stack.running_image(name) for name in services} == serves, what
        if has_data:
            assert [row[1] for row in stack.said()] == [row[1] for row in kept], what
            assert len(stack.said()[0]) == (3 if way == "--resume" else 2), f"shape of the data: {what}"

    after, before = range(SWITCH, len(STEPS))[share::2], range(SWITCH)[share::2]
    for late, early in zip_longest(after, before):
        if late is not None:
            goes(late, "--resume")
        goes(after[-1] if late is None else late, "--undo")  # if only so that the old version runs again
        if early is not None:
            goes(early, "--undo")
        goes(before[-1] if early is None else early, "--resume")
    assert stack.stackctl("rollback").returncode == 0, "what a rollback needs is still there"


def test_killed_in_the_middle_and_rolled_back(make_stack: Make) -> None:
    stack = make_stack("engine", **QUICK)
    stack.up()
    old = stack.running_image("engine")
    for step in ("switch", "speed"):
        stack.build("engine", "good")
        border = STEPS.index(step) + 1
        assert stack.driven(border, "upgrade").returncode == -signal.SIGKILL, "switched, and not yet in force"
        reboot(stack)
        back = stack.stackctl("rollback")
        assert back.returncode == 0, back.stderr
        assert stack.running_image("engine") == old, step

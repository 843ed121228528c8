"""What is to be done afterwards is done once, however the work ended."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.errors import StackctlError
from stackctl.runtime.guardian import afterwards
from tests.support.stacks import wait_for


def leaves_a_line(path: Path) -> list[str]:
    return ["sh", "-c", 'echo done >> "$0"', str(path)]


def test_after_the_end_and_after_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with afterwards(leaves_a_line(log)):
        assert not log.exists()
    assert log.read_text() == "done\n"
    with pytest.raises(ZeroDivisionError), afterwards(leaves_a_line(log)):
        raise ZeroDivisionError
    assert log.read_text() == "done\n" * 2


def test_after_a_kill(tmp_path: Path) -> None:
    log, ready = tmp_path / "log", tmp_path / "ready"
    code = (
        "import pathlib, sys, time; from stackctl.runtime.guardian import afterwards\n"
        f"with afterwards({leaves_a_line(log)!r}):\n"
        f"    pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(ready.exists, "the work has begun")
    assert not log.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(log.exists, "what is to be done afterwards")


def test_a_command_that_fails_is_told() -> None:
    with (
        pytest.raises(StackctlError, match="exit 3: not today"),
        afterwards(["sh", "-c", "echo not today >&2; exit 3"]),
    ):
        pass

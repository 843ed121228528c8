"""Releases go when nobody runs them, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackctl import paths
from stackctl.hosts import releases


def release(base: Path, number: int, *, ready: bool = True, age: float = 7200) -> Path:
    made = base / paths.RELEASES / str(number)
    (made / "venv" / "bin").mkdir(parents=True)
    (made / "venv" / "bin" / "python").symlink_to(sys.executable)
    if ready:
        (made / releases.READY).touch()
    past = time.time() - age
    os.utime(made, (past, past))
    return made


def names(base: Path) -> list[str]:
    return sorted(path.name for path in (base / paths.RELEASES).iterdir())


def test_old_ones_go_when_their_last_process_has_ended(tmp_path: Path) -> None:
    first, _second, _third, _fourth = [release(tmp_path, number) for number in (1, 2, 9, 10)]
    (tmp_path / "current").symlink_to(f"{paths.RELEASES}/10")
    argv = [first / "venv/bin/python", "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "up\n"
        assert [path.name for path in releases.prune(tmp_path)] == ["2"]
        assert names(tmp_path) == ["1", "10", "9"]  # in use, current, the one before
        process.stdin.write("\n")
    assert [path.name for path in releases.prune(tmp_path)] == ["1"]
    assert names(tmp_path) == ["10", "9"]


def test_an_unfinished_one_goes_when_it_is_old(tmp_path: Path) -> None:
    release(tmp_path, 1)
    release(tmp_path, 2, ready=False)
    release(tmp_path, 3)
    release(tmp_path, 4, ready=False, age=0)  # another bootstrap is at it
    (tmp_path / "current").symlink_to(f"{paths.RELEASES}/3")
    releases.prune(tmp_path)
    assert names(tmp_path) == ["1", "3", "4"]


def test_what_is_written_down_outlives_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "home/.local/share/stackctl"
    made = release(base, 3)
    monkeypatch.setattr(sys, "executable", str(made / "venv/bin/python"))
    assert paths.program() == made / "venv/bin/stackctl"  # there is nothing better
    launcher = tmp_path / "home/.local/bin/stackctl"
    launcher.parent.mkdir()
    launcher.touch()
    assert paths.program() == launcher

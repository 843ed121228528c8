"""Ctrl-C typed at a real terminal: it reaches stackctl alone, never the program of the step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stacks import Folder, engine, environment_for, free_port, wait_for

STACKCTL = str(Path(sys.executable).parent / "stackctl")
CTRL_C = b"\x03"
STOPPING = "stopping when this step is over"


class Terminal:
    """stackctl as the leader of the foreground of a terminal of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LEADER, os.ttyname(slave), STACKCTL, *arguments],
            cwd=folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def until(self, words: str) -> None:
        wait_for(lambda: words in self._read(), f"'{words}' on the terminal", 60)

    def ended(self) -> int:
        wait_for(lambda: self._read() is not None and self.process.poll() is not None, "its end", 90)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)

    def _read(self) -> str:
        try:
            while chunk := os.read(self._master, 1 << 16):
                self.text += chunk.decode(errors="replace")
        except (BlockingIOError, OSError):
            pass  # nothing more for now; EIO when the other side is gone
        return self.text


# The terminal becomes the controlling one, as in a shell: only so does Ctrl-C make signals.
_LEADER = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)

PAGE = """---
id: slow
title: Slow
requires: {{stack: false}}
lock: none
---
```step
id: one
title: Work
run: [sh, -c, 'trap "echo hit >> {0}/log" INT; echo $$ > {0}/pid; while [ ! -e {0}/go ]; do sleep 0.05; done; echo whole >> {0}/log']
```
```step
id: two
title: More work
run: [touch, '{0}/two']
```
"""  # noqa: E501


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "slow.md").write_text(PAGE.format(tmp_path))
    made = Terminal(tmp_path, environment_for(tmp_path), "run", "slow")
    wait_for(lambda: (tmp_path / "pid").exists(), "the step has begun", 60)
    yield made
    made.close()


def test_the_first_stops_at_the_step_border_and_the_step_is_not_hit(slow: Terminal, tmp_path: Path) -> None:
    slow.type(CTRL_C)
    slow.until(STOPPING)
    (tmp_path / "go").touch()
    assert slow.ended() == 130, slow.text
    assert (tmp_path / "log").read_text().split() == ["whole"]
    assert not (tmp_path / "two").exists()
    assert "fix: stackctl run slow --resume" in slow.text


def test_the_second_stops_at_once_and_leaves_no_process(slow: Terminal, tmp_path: Path) -> None:
    slow.type(CTRL_C)
    slow.until(STOPPING)
    slow.type(CTRL_C)
    began = time.monotonic()
    assert slow.ended() == 130, slow.text
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the program of the step is gone", 10)
    assert not (tmp_path / "two").exists()


@pytest.mark.docker
def test_compose_finishes_its_work(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(engine(standin_image, free_port(), start_grace="60s"))
    terminal = Terminal(docker_folder.path, docker_folder.environment, "up")
    try:
        terminal.until("Container")
        terminal.type(CTRL_C)
        assert terminal.ended() == 128 + signal.SIGINT, terminal.text
        assert STOPPING in terminal.text and "fix: stackctl up" in terminal.text
    finally:
        terminal.close()
    [service] = docker_folder.ok("status", "--json").json["services"]
    assert service["state"] == "running", "compose was not cut off"
    docker_folder.ok("up")

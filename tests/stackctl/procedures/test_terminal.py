"""Ctrl-C typed at a real terminal: it reaches stackctl alone, never the program of the step."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stacks import PROGRAM, Folder, engine, environment_for, free_port, wait_for
from tests.support.terminal import CTRL_C, Terminal

STOPPING = "stopping when this step is over"
SCRIPT = (
    'trap "echo hit >> {0}/log" INT; echo $$ > {0}/pid; while [ ! -e {0}/go ]; do sleep 0.05; done; '
    "echo whole >> {0}/log"
)
PAGE = f"""---
id: slow
title: Slow
requires: {{{{stack: false}}}}
lock: none
---
```step
id: one
title: Work
run: [sh, -c, '{SCRIPT}']
```
```step
id: two
title: More work
run: [touch, '{{0}}/two']
```
"""


def at_terminal(folder: Path, environment: dict[str, str], *arguments: str) -> Terminal:
    return Terminal(["env", "-C", str(folder), PROGRAM, *arguments], environment)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "slow.md").write_text(PAGE.format(tmp_path))
    with at_terminal(tmp_path, environment_for(tmp_path), "run", "slow") as terminal:
        wait_for(lambda: (tmp_path / "pid").exists(), "the step has begun", 60)
        yield terminal


def test_the_first_stops_at_the_step_border_and_the_step_is_not_hit(slow: Terminal, tmp_path: Path) -> None:
    slow.type(CTRL_C)
    slow.expect(STOPPING)
    (tmp_path / "go").touch()
    assert slow.ends() == 130, slow.seen
    assert (tmp_path / "log").read_text().split() == ["whole"]
    assert not (tmp_path / "two").exists()
    assert "fix: stackctl run slow --resume" in slow.seen


def test_the_second_stops_at_once_and_leaves_no_process(slow: Terminal, tmp_path: Path) -> None:
    slow.type(CTRL_C)
    slow.expect(STOPPING)
    slow.type(CTRL_C)
    began = time.monotonic()
    assert slow.ends() == 130, slow.seen
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the program of the step is gone", 10)
    assert not (tmp_path / "two").exists()


def test_a_terminal_that_goes_away_does_not_end_the_run(slow: Terminal, tmp_path: Path) -> None:
    os.close(slow.master)  # the kernel sends SIGHUP before this returns
    slow.master = os.open(os.devnull, os.O_RDONLY)
    (tmp_path / "go").touch()
    assert slow.process.wait(60) == 0
    assert (tmp_path / "two").exists() and (tmp_path / "log").read_text().split() == ["whole"]


def test_a_reader_that_goes_away_leaves_the_undo_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "fails.md").write_text(
        "---\nid: fails\ntitle: T\nrequires: {stack: false}\nlock: none\n---\n"
        f"```step\nid: one\ntitle: T\nrun: [touch, {tmp_path}/made]\nundo: [rm, {tmp_path}/made]\n```\n"
        "```step\nid: two\ntitle: T\nrun: ['false']\n```\n"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} run fails 2>&1 | true; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=environment_for(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert not (tmp_path / "made").exists()


@pytest.mark.docker
def test_compose_finishes_its_work(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(engine(standin_image, free_port(), start_grace="60s"))
    with at_terminal(docker_folder.path, docker_folder.environment, "up") as terminal:
        terminal.expect("Container")
        terminal.type(CTRL_C)
        assert terminal.ends(90) == 128 + signal.SIGINT, terminal.seen
        assert STOPPING in terminal.seen and "fix: stackctl up" in terminal.seen
    [service] = docker_folder.ok("status", "--json").json["services"]
    assert service["state"] == "running", "compose was not cut off"
    docker_folder.ok("up")

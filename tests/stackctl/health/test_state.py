"""The state file: what is written is read back, crashes and garbage are survived, two runs never mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.health.evaluator import CheckState
from stackctl.health.model import Status
from stackctl.health.moment import Moment
from stackctl.health.state import Busy, Memory, load, run_lock, save, write_atomically

NOW = Moment(1_700_000_000.0, 1000.0, "boot-1")


def test_round_trip(tmp_path: Path) -> None:
    state = CheckState(
        hard=Status.CRITICAL,
        hard_since=NOW,
        seen=Status.WARNING,
        seen_at=NOW,
        history=(Status.OK, Status.WARNING, Status.CRITICAL),
        hard_changes=(NOW, NOW.plus(5)),
        flapping=True,
        told=Status.WARNING,
        memory={"restarts": 4},
    )
    memory = Memory({"engine": state}, [{"id": 1}], [NOW], [{"id": 2}], {"gpu-lost": [NOW]}, NOW)
    path = tmp_path / "health.json"
    save(path, memory)
    assert load(path) == memory
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "checks": 3}', "\x00\x00"])
def test_garbage_is_set_aside_and_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(text)
    memory = load(path)
    assert memory.checks == {}
    assert memory.trouble is not None and "set aside" in memory.trouble
    assert not path.exists()
    assert [aside.read_text() for aside in tmp_path.glob("health.broken-*.json")] == [text]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    save(path, Memory(last_run=NOW))
    before = path.read_text()
    with pytest.raises(TypeError):
        save(path, Memory(outbox=[{"bad": object()}]))
    assert path.read_text() == before
    (tmp_path / "dir.json").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "dir.json", "x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dir.json", "health.json"]


def test_the_lock_keeps_a_second_run_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom stackctl.health.state import run_lock\n"
        f"with run_lock(pathlib.Path({str(tmp_path)!r})):\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy) as caught, run_lock(tmp_path):
            pass
        assert caught.value.holder["pid"] == holder.pid
        assert 0 < caught.value.age < 60
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run_lock(tmp_path, wait=2):
            assert json.loads((tmp_path / "health.lock").read_text())["pid"] == os.getpid()
    finally:
        holder.kill()
        holder.communicate()

"""The other shipped procedures, run as a person would, on a real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from tests.stackctl.upgrade.conftest import Stack, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]
Make = Callable[..., Stack]


def test_a_life_of_a_stack(make_stack: Make) -> None:
    """bring-up, rotate-keys, backup, restore-drill, gpu-lost, disk-full, tear-down, restore, in order."""
    stack = make_stack("engine", "webui")
    up = stack.stackctl("run", "bring-up", "-i", "room=1m")
    assert up.returncode == 0, up.stderr
    stack.say("remember me")
    secrets = {path.name: path.read_text() for path in (stack.state / "secrets").iterdir()}
    rotated = stack.stackctl("run", "rotate-keys")
    assert rotated.returncode == 0, rotated.stderr
    assert secrets != {path.name: path.read_text() for path in (stack.state / "secrets").iterdir()}

    assert stack.stackctl("run", "restore-drill").returncode == 3, "there is no backup yet"
    made = stack.stackctl("backup", "create")
    assert made.returncode == 0, made.stderr
    [backup] = (stack.state / "backups").glob("*.backup")
    drill = stack.stackctl("run", "restore-drill")
    assert drill.returncode == 0, drill.stderr
    assert "came up healthy" in drill.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-drill").stdout == ""
    assert stack.said() == [(1, "remember me")]

    gpu = stack.stackctl("run", "gpu-lost")
    assert gpu.returncode == 0 and "already so" in gpu.stderr, gpu.stderr
    assert stack.stackctl("run", "disk-full", "-i", "room=1m").returncode == 0
    full = stack.stackctl("run", "disk-full", "-i", "room=900t")
    assert full.returncode == 1 and "wanted" in full.stderr, full.stderr

    no = stack.stackctl("run", "tear-down")
    assert no.returncode == 3 and "no terminal" in no.stderr, no.stderr
    gone = stack.stackctl("run", "tear-down", "--resume", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-").stdout == ""

    kept = stack.folder / backup.name
    shutil.copy(backup, kept)
    shutil.rmtree(stack.folder / "state")
    shutil.rmtree(stack.folder / "data")
    (stack.folder / "stack.yaml").unlink()
    back = stack.stackctl("backup", "restore", str(kept))
    assert back.returncode == 0, back.stderr
    assert stack.said() == [(1, "remember me")]


def test_worse_weights_are_put_back(make_stack: Make) -> None:
    stack = make_stack("engine")
    stack.up()
    done = stack.stackctl("run", "model-refresh", "-i", "models=standin", "--json")
    assert done.returncode == 4 and "is worse" in done.stderr, done.stderr
    assert json.loads(done.stdout)["steps"]["pull"]["state"] == "undone"
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['engine']}/api/tags", timeout=5) as answer:
        assert [(m["name"], m["digest"]) for m in json.load(answer)["models"]] == [
            ("standin:latest", "0" * 64)
        ]

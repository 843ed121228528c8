"""The other shipped procedures on a real Docker Engine: the good branch and the failing one."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.procedures.locate import shipped_folder
from tests.stackctl.upgrade.conftest import Stack, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]
Make = Callable[..., Stack]


def started(stack: Stack, service: str) -> str:
    return docker("inspect", "--format", "{{.State.StartedAt}}", f"{stack.name}-{service}-1").stdout


def secrets(stack: Stack) -> dict[str, str]:
    return {path.name: path.read_text() for path in (stack.state / "secrets").iterdir()}


def flipped(backup: Path, target: Path) -> Path:
    whole = bytearray(backup.read_bytes())
    whole[whole.index(b"\x1f\x8b", 512) + 40] ^= 4
    target.write_bytes(whole)
    return target


def test_a_life_of_a_stack(make_stack: Make) -> None:
    """bring-up, backup, restore-drill, disk-full, tear-down, restore, in order."""
    stack = make_stack("engine", "webui")
    passphrase = stack.folder / "passphrase"
    passphrase.write_text("correct horse battery")
    stack.settings = {"backup": {"passphrase_file": str(passphrase), "consistency": "stop"}}
    stack.write()
    up = stack.stackctl("run", "bring-up")
    assert up.returncode == 0, up.stderr
    stack.say("remember me")
    before = secrets(stack)

    assert stack.stackctl("run", "restore-drill").returncode == 3, "there is no backup yet"
    was = started(stack, "webui"), started(stack, "engine")
    docker("stop", "-t", "1", f"{stack.name}-webui-1")  # as a backup that was killed leaves it
    made = stack.stackctl("backup", "create")
    assert made.returncode == 0, made.stderr
    now = started(stack, "webui"), started(stack, "engine")
    assert now[0] != was[0] and now[1] == was[1], "consistency: stop rests the service that has data alone"
    assert stack.running_image("webui"), "and starts it again, whoever had stopped it"
    again = stack.stackctl("backup", "create")
    assert again.returncode == 0 and "stopping webui for the copy" in again.stderr, again.stderr
    assert started(stack, "webui") != now[0] and stack.running_image("webui")
    *_, backup = sorted((stack.state / "backups").glob("*.backup"))
    drill = stack.stackctl("run", "restore-drill", "-i", f"passphrase_file={passphrase}")
    assert drill.returncode == 0, drill.stderr
    assert "came up healthy" in drill.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-drill").stdout == ""
    assert stack.said() == [(1, "remember me")]

    aside = stack.data / "webui.replaced-20260101T000000000000"
    aside.mkdir()
    assert stack.stackctl("run", "disk-full", "-i", "room=1m").returncode == 0
    nobody = stack.stackctl("run", "disk-full", "-i", "room=900t")
    assert nobody.returncode == 3 and "Delete the data" in nobody.stderr and aside.exists(), nobody.stderr
    full = stack.stackctl("run", "disk-full", "-i", "room=900t", "--yes")
    assert full.returncode == 1 and "wanted" in full.stderr and not aside.exists(), full.stderr

    again = ["run", "restore", "-i", f"file={backup}", "-i", f"folder={stack.folder}"]
    under = stack.stackctl(*again, "-i", f"passphrase_file={passphrase}")
    assert under.returncode == 3 and "is up on this host" in under.stderr, under.stderr
    assert not list(stack.data.glob("*.replaced-*")) and stack.said() == [(1, "remember me")]
    no = stack.stackctl("run", "tear-down")
    assert no.returncode == 3 and "no terminal" in no.stderr, no.stderr
    passphrase.rename(stack.folder / "away")
    bad = stack.stackctl("run", "tear-down", "--yes")
    assert bad.returncode == 1 and "cannot read the passphrase" in bad.stderr, bad.stderr
    assert stack.running_image("webui"), "nothing is taken down without a backup"
    (stack.folder / "away").rename(passphrase)
    gone = stack.stackctl("run", "tear-down", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-").stdout == ""

    kept = stack.folder / "kept.backup"
    shutil.copy(backup, kept)
    shutil.rmtree(stack.folder / "state")
    shutil.rmtree(stack.folder / "data")
    (stack.folder / "stack.yaml").unlink()
    damaged = flipped(kept, stack.folder / "damaged.backup")
    for command in (["backup", "verify"], ["backup", "restore", "--passphrase-file", str(passphrase)]):
        refused = stack.stackctl(*command, str(damaged))
        assert refused.returncode == 1 and "damaged: config/stack.yaml" in refused.stderr, refused.stderr
    assert not (stack.folder / "stack.yaml").exists() and not stack.data.exists()
    back = stack.stackctl("backup", "restore", str(kept), "--passphrase-file", str(passphrase))
    assert back.returncode == 0, back.stderr
    assert stack.said() == [(1, "remember me")] and secrets(stack) == before


def test_a_drill_that_fails_says_so_and_leaves_nothing(make_stack: Make) -> None:
    stack = make_stack("engine")
    stack.up()
    assert stack.stackctl("backup", "create").returncode == 0
    old = stack.running_image("engine")
    stack.build("engine", "crash-at-once")  # what a restore on another day would get under that tag
    drill = stack.stackctl("run", "restore-drill")
    assert drill.returncode == 4 and "undone: drill" in drill.stderr, drill.stderr
    assert "exit code 3" in drill.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-drill").stdout == ""
    assert not (stack.state / "drill").exists() and stack.running_image("engine") == old


def test_keys_are_rotated_or_the_old_ones_come_back(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.up()
    before = secrets(stack)
    good = stack.stackctl("run", "rotate-keys")
    assert good.returncode == 0, good.stderr
    after = secrets(stack)
    assert set(after) == set(before) and after["webui_secret_key"] != before["webui_secret_key"]
    # Open WebUI reads this one while it has no database, and it has one: a new value would change no login.
    assert after["webui_admin_password"] == before["webui_admin_password"]
    stack.build("webui", "one-key")
    stack.up()
    bad = stack.stackctl("run", "rotate-keys")
    assert bad.returncode == 4 and "went back" in bad.stderr, bad.stderr
    assert secrets(stack) == after
    assert not (stack.state / "secrets.before-rotation").exists(), "no second copy of secrets is left"
    health = json.loads(stack.stackctl("status", "--json").stdout)["services"]
    assert {one["name"]: one["health"] for one in health} == {"engine": "healthy", "webui": "healthy"}


def test_a_lost_gpu_comes_back_by_a_restart_or_a_person_is_called(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.settings = {"gpu": {"mode": "auto"}}
    stack.build("engine", "gpu")
    stack.write()
    stack.up()
    well = stack.stackctl("run", "gpu-lost")
    assert well.returncode == 0 and "already so" in well.stderr, well.stderr

    engine, webui = f"{stack.name}-engine-1", started(stack, "webui")
    docker("exec", engine, "touch", "/tmp/lost")
    planned = stack.stackctl("run", "gpu-lost", "--plan").stdout
    assert "would run" in planned and "Unknown Error" in planned
    mended = stack.stackctl("run", "gpu-lost", "-i", "at_most=1")
    assert mended.returncode == 0, mended.stderr
    assert docker("exec", engine, "nvidia-smi", "-L").returncode == 0
    assert started(stack, "webui") == webui, "the engine alone was restarted"

    docker("exec", engine, "touch", "/tmp/lost")
    was = started(stack, "engine")
    often = stack.stackctl("run", "gpu-lost", "-i", "at_most=1")
    assert often.returncode == 4 and "a restart does not cure it" in often.stderr, often.stderr
    assert started(stack, "engine") == was, "it was not restarted once more"

    # A page of one's own takes the place of the shipped one: here, with less patience.
    own = stack.folder / "procedures"
    own.mkdir()
    shipped = (shipped_folder() / "gpu-lost.md").read_text()
    (own / "gpu-lost.md").write_text(shipped.replace("timeout: 5m", "timeout: 12s"))
    stack.build("engine", "gpu-gone")
    stack.up()
    gone = stack.stackctl("run", "gpu-lost")
    assert gone.returncode == 4 and "Unknown Error" in gone.stderr, gone.stderr


def test_moving_waits_for_the_new_host_to_prove_itself(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.up()
    answers = ("run", "move-host", "-i", "to=newbox", "--yes", "--answer", "restore=done")
    assert stack.stackctl("run", "move-host", "-i", "to=newbox").returncode == 3, "a person is needed"
    no = stack.stackctl(*answers, "--answer", "check=no")
    assert no.returncode == 3 and "answered no" in no.stderr, no.stderr
    assert stack.running_image("engine"), "the old host goes on serving"
    yes = stack.stackctl(*answers, "--answer", "check=yes")
    assert yes.returncode == 0, yes.stderr
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-").stdout == ""
    assert stack.database.exists() and len(list((stack.state / "backups").iterdir())) >= 1
    journal = stack.stackctl("procedures", "journal").stdout
    assert "answer=yes" in journal


def test_newer_weights_stay_when_as_good_and_are_put_back_when_worse(make_stack: Make) -> None:
    stack = make_stack("engine")
    stack.up()

    def models() -> dict[str, str]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{stack.ports['engine']}/api/tags", timeout=5
        ) as answer:
            return {model["name"]: model["digest"][0] for model in json.load(answer)["models"]}

    good = stack.stackctl("run", "model-refresh", "-i", "models=improving")
    assert good.returncode == 0 and "as good as before" in good.stderr, good.stderr
    assert models() == {"standin:latest": "0", "improving:latest": "2"}
    worse = stack.stackctl("run", "model-refresh", "-i", "models=standin", "--json")
    assert worse.returncode == 4 and "is worse" in worse.stderr, worse.stderr
    assert json.loads(worse.stdout)["steps"]["pull"]["state"] == "undone"
    assert models() == {"standin:latest": "0", "improving:latest": "2"}


def test_a_rollback_that_fails_goes_forth_again_with_the_data(make_stack: Make) -> None:
    stack = make_stack("engine", "webui")
    stack.build("webui", "once")
    stack.up()
    stack.say("before the upgrade")
    new = stack.build("webui", "good")
    done = stack.stackctl("upgrade")
    assert done.returncode == 0, done.stderr
    stack.say("after the upgrade")
    back = stack.stackctl("rollback", "--data", "always")
    assert back.returncode == 4 and "went back" in back.stderr, back.stderr
    assert stack.running_image("webui") == new
    assert [row[1] for row in stack.said()] == ["before the upgrade", "after the upgrade"]
    assert json.loads(stack.stackctl("generations", "--json").stdout)["generations"][-1]["role"] == "current"

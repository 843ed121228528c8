"""`stackctl backup` as a person uses it: every place has the backup, old ones go, and it can be had again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stackctl.backup.support import make_stack
from tests.stackctl.backup.test_targets import sshd  # noqa: F401 - a fixture
from tests.support.stacks import PROGRAM

ONE = {"last": 1, "daily": 0, "weekly": 0, "monthly": 0}


def stackctl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments], cwd=folder, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def listed(folder: Path) -> list[str]:
    return [line.split()[0] for line in stackctl(folder, "backup", "list").stdout.splitlines()[1:]]


def a_second_later() -> None:
    """Backups are named by the second."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


def retry_at_once(folder: Path) -> None:
    own = folder / "procedures"
    own.mkdir()
    shipped = Path(__file__).parents[3] / "procedures" / "backup.md"
    (own / "backup.md").write_text(shipped.read_text().replace("retry_delay: 10s", "retry_delay: 10ms"))


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed")
def test_every_place_has_the_newest_alone_and_gives_it_back(
    tmp_path: Path,
    sshd: str,  # noqa: F811
) -> None:
    here, password = tmp_path / "here", tmp_path / "password"
    password.write_text("restic password")
    places: list[Any] = [
        str(tmp_path / "disk"),
        {"sftp": sshd, "identity": str(tmp_path / "user_key")},
        {"restic": str(tmp_path / "repository"), "password_file": str(password)},
    ]
    make_stack(here, to=places, keep=ONE)
    first = stackctl(here, "backup", "create")
    assert first.returncode == 0, first.stderr
    [name] = set(listed(here))
    assert len(listed(here)) == 4
    a_second_later()
    assert stackctl(here, "backup", "create").returncode == 0
    [newer] = set(listed(here))
    assert newer > name and len(listed(here)) == 4

    own = next((tmp_path / "state").rglob(newer))
    wanted = own.read_bytes()
    own.write_bytes(wanted[:1000] + b"?" + wanted[1001:])
    with (tmp_path / "disk" / newer).open("ab") as file:
        file.write(b"longer")
    fetched = stackctl(here, "backup", "fetch", newer, "--to", str(tmp_path / "fetched"))
    assert fetched.returncode == 0 and "from sftp" in fetched.stderr, fetched.stderr
    assert fetched.stderr.count("is damaged") == 2, "a damaged copy is told, and the next place is asked"
    assert (tmp_path / "fetched" / newer).read_bytes() == wanted
    shutil.rmtree(tmp_path / "remote")
    again = stackctl(here, "backup", "fetch", newer, "--to", str(tmp_path / "fetched"))
    assert again.returncode == 0 and "from restic" in again.stderr, again.stderr
    assert (tmp_path / "fetched" / newer).read_bytes() == wanted


def test_a_place_that_fails_is_an_error_and_the_others_have_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    make_stack(tmp_path / "here", to=[str(tmp_path / "file" / "x"), str(tmp_path / "disk")])
    retry_at_once(tmp_path / "here")
    done = stackctl(tmp_path / "here", "backup", "create")
    assert done.returncode == 1 and "not everywhere: cannot write to" in done.stderr, done.stderr
    assert len(list((tmp_path / "disk").glob("*.backup"))) == 1
    assert "what was done stays done" in done.stderr


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed")
def test_a_place_that_is_away_is_no_empty_one_and_keeps_nobody_from_being_tidied(tmp_path: Path) -> None:
    here, repository, password = tmp_path / "here", tmp_path / "repository", tmp_path / "password"
    password.write_text("restic password")
    disk = tmp_path / "disk"
    make_stack(here, to=[{"restic": str(repository), "password_file": str(password)}, str(disk)], keep=ONE)
    retry_at_once(here)
    assert stackctl(here, "backup", "list").returncode == 0, "one that is not there yet is empty"
    assert stackctl(here, "backup", "create").returncode == 0
    password.write_text("another")  # there, and not to be opened
    a_second_later()
    done = stackctl(here, "backup", "create")
    assert done.returncode == 1 and "not asked: " in done.stderr, done.stderr
    assert "1 old backups removed" in done.stderr or "2 old backups removed" in done.stderr, done.stderr
    assert len(list(disk.glob("*.backup"))) == 1
    shown = stackctl(here, "backup", "list", "--json")
    assert shown.returncode == 1 and list(json.loads(shown.stdout)["unreachable"]) == [f"restic {repository}"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    stack = make_stack(tmp_path / "here", to=[str(disk)])
    own = stack.config.state_path / "backups"
    left = [
        own / ".bk-20260101T000000Z.backup.partial",
        own / ".bk-20260101T000000Z.backup.partial.member",
        disk / ".bk-20260101T000000Z.backup.partial",
        stack.config.state_path / "stackctl-backup-x1" / "file",
    ]
    others = disk / ".other-20260101T000000Z.backup.partial"
    for path in (*left, others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert stackctl(tmp_path / "here", "backup", "create").returncode == 0
    assert not any(path.exists() for path in left) and others.exists()


def test_the_page_restore_onto_an_empty_host_and_its_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack(tmp_path / "here")
    data = stack.config.data_path / "webui"
    (data / "empty").mkdir(mode=0o750)
    (data / "latest").symlink_to("uploads/paper.txt")
    (data / "elsewhere").symlink_to("/nowhere/at/all")
    os.mkfifo(data / "pipe")
    made = stackctl(tmp_path / "here", "backup", "create")
    assert made.returncode == 0 and "left out, no plain files: pipe" in made.stderr, made.stderr
    [backup] = (tmp_path / "state").rglob("*.backup")
    kept = Path(shutil.copy(backup, tmp_path / "kept.backup"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other-state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other-data"))

    whole = kept.read_bytes()
    place = whole.index(b"data/webui/uploads/paper.txt.gz") + 512 + 20
    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    there = tmp_path / "there"
    refused = stackctl(tmp_path, "run", "restore", "-i", f"file={damaged}", "-i", f"folder={there}")
    assert refused.returncode == 1 and "damaged: data/webui/uploads/paper.txt" in refused.stderr
    assert not there.exists() and not (tmp_path / "other-data").exists()

    done = stackctl(tmp_path, "run", "restore", "-i", f"file={kept}", "-i", f"folder={there}")
    assert done.returncode == 0, done.stderr
    restored = tmp_path / "other-data" / "stackctl" / "bk" / "webui"
    assert (restored / "empty").is_dir() and (restored / "empty").stat().st_mode & 0o777 == 0o750
    assert (restored / "latest").read_text().startswith("words ") and (restored / "latest").is_symlink()
    assert os.readlink(restored / "elsewhere") == "/nowhere/at/all"
    assert (restored / "cache").is_dir() and not list((restored / "cache").iterdir())
    with contextlib.closing(sqlite3.connect(restored / "webui.db")) as database:
        assert database.execute("SELECT said FROM chat").fetchall() == [("remember me",)]

"""A backup holds what it should and nothing in clear that it should not; any flipped bit is refused and
named.
"""

import contextlib
import gzip
import random
import sqlite3
import subprocess
from pathlib import Path

import pytest

from stackctl.backup import age, archive, create, restore
from stackctl.errors import PreflightError, StackctlError
from tests.stackctl.backup.support import make_stack, said


def backup_of(tmp_path: Path, **settings: object) -> Path:
    return create.create(make_stack(tmp_path / "here", **settings), tmp_path / "out" / "x.backup")


def test_holds_what_cannot_be_made_again_and_no_clear_secret(tmp_path: Path) -> None:
    passphrase = tmp_path / "pass"
    passphrase.write_text("correct horse battery\n")
    path = backup_of(tmp_path, passphrase_file=str(passphrase))
    manifest = archive.verify(path)
    names = {entry["path"] for entry in manifest["files"]}
    assert names == {
        "config/stack.yaml",
        "data/webui/uploads/noise",
        "data/webui/uploads/paper.txt",
        "data/webui/webui.db",
        "secrets.age",
    }
    assert manifest["secrets"] == "passphrase"
    assert b"a-very-secret-value" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def test_plain_tools_open_it(tmp_path: Path) -> None:
    path = backup_of(tmp_path)
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True, capture_output=True)
    assert gzip.decompress((tmp_path / "data/webui/uploads/paper.txt.gz").read_bytes()).startswith(b"words ")


def test_database_is_copied_while_somebody_writes(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "here")
    live = stack.config.data_path / "webui" / "webui.db"
    with contextlib.closing(sqlite3.connect(live)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO chat VALUES ('not committed')")
        path = create.create(stack, tmp_path / "x.backup")
        writer.rollback()
    manifest = archive.verify(path)
    database = tmp_path / "copy.db"
    database.write_bytes(archive.read(path, manifest, "data/webui/webui.db"))
    with contextlib.closing(sqlite3.connect(database)) as copy:
        assert copy.execute("SELECT said FROM chat").fetchall() == [("remember me",)]


def test_any_flipped_bit_is_refused_and_named(tmp_path: Path) -> None:
    path = backup_of(tmp_path)
    whole = path.read_bytes()
    chance = random.Random(7)
    for place in [0, len(whole) - 1, len(whole) - 500, *chance.sample(range(len(whole)), 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(archive.BackupDamaged) as caught:
            archive.verify(path)
        assert caught.value.damaged, f"byte {place}"
    inside = whole.index(b"\x1f\x8b", 512) + 40
    damaged = bytearray(whole)
    damaged[inside] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(archive.BackupDamaged, match=r"config/stack\.yaml"):
        archive.verify(path)


@pytest.mark.parametrize("length", [0, 100, 512, 5000])
def test_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = backup_of(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(archive.BackupDamaged):
        archive.verify(path)


def test_restores_onto_an_empty_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, public = age.new_identity()
    path = backup_of(tmp_path, recipients=[public])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other-state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other-data"))
    with pytest.raises(age.CannotOpen):
        restore.restore(path, tmp_path / "there")
    assert not (tmp_path / "there").exists(), "refused before anything was written"
    done = restore.restore(path, tmp_path / "there", identities=[secret])
    from stackctl.operations.context import open_stack
    from stackctl.runtime.secrets import SecretStore

    stack = open_stack(done.loaded)
    assert said(stack) == ["remember me"]
    assert SecretStore(stack.name).get("webui_secret_key").reveal() == "a-very-secret-value"
    assert str(stack.config.data_path).startswith(str(tmp_path / "other-data"))


def test_what_is_there_is_moved_aside(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "here")
    path = create.create(stack, tmp_path / "x.backup")
    with sqlite3.connect(stack.config.data_path / "webui" / "webui.db") as database:
        database.execute("INSERT INTO chat VALUES ('newer')")
    done = restore.restore(path, tmp_path / "here")
    assert said(stack) == ["remember me"]
    assert len(done.aside) == 1 and (done.aside[0] / "webui.db").exists()


def test_a_different_stack_file_is_not_overwritten(tmp_path: Path) -> None:
    path = backup_of(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "stack.yaml").write_text("name: mine\n")
    with pytest.raises(PreflightError, match="differs"):
        restore.restore(path, tmp_path / "there")
    assert (tmp_path / "there" / "stack.yaml").read_text() == "name: mine\n"


def test_a_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    writer = archive.Writer(tmp_path / "evil.backup")
    writer.add_bytes("config/stack.yaml", b"name: evil\nruntime: local\n")
    writer.add_bytes("data/webui/../../../evil", b"x")
    path = writer.finish({"stack": "evil", "secrets": "none", "models": [], "stack_file": "stack.yaml"})
    with pytest.raises(StackctlError, match="outside"):
        restore.restore(path, tmp_path / "there")


def test_failure_leaves_no_half_file(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "here", passphrase_file=str(tmp_path / "missing"))
    with pytest.raises(StackctlError, match="passphrase"):
        create.create(stack, tmp_path / "out" / "x.backup")
    assert list((tmp_path / "out").iterdir()) == []

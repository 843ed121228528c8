"""Snapshots for upgrades: whole or not there, restored beside what was, migrations seen."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from stackctl.backup import snapshot
from stackctl.errors import StackctlError
from tests.stackctl.backup.support import make_stack, said


def test_there_and_back(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    taken = snapshot.take(stack.config, "before-2")
    assert snapshot.find(stack.config, "before-2") == taken and snapshot.find(stack.config, "x") is None
    assert snapshot.migrated(stack.config, taken) == []
    database = stack.config.data_path / "webui" / "webui.db"
    with sqlite3.connect(database) as live:
        live.execute("INSERT INTO chat VALUES ('newer')")
    assert snapshot.migrated(stack.config, taken) == [], "new rows are no migration"
    with sqlite3.connect(database) as live:
        live.execute("ALTER TABLE chat ADD COLUMN extra TEXT")
    assert snapshot.migrated(stack.config, taken) == ["webui"]
    [aside] = snapshot.restore(stack.config, taken, ["webui"])
    assert said(stack) == ["remember me"] and (aside / "webui.db").exists()
    assert not (stack.config.data_path / "webui" / "cache" / "again").exists(), "the disposable is not kept"


def test_a_draft_of_a_killed_copy_does_not_count(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    draft = snapshot.root(stack.config) / ".before-2.draft"
    draft.mkdir(parents=True)
    (draft / "half").write_text("x")
    assert snapshot.find(stack.config, "before-2") is None
    taken = snapshot.take(stack.config, "before-2")
    assert not draft.exists() and not (taken.path / "half").exists()


def test_prune_spares_what_is_wanted(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    for name in ("before-2", "before-3"):
        snapshot.take(stack.config, name)
    snapshot.prune(stack.config, [3])
    assert [path.name for path in snapshot.root(stack.config).iterdir()] == ["before-3"]


def test_the_copy_of_a_generation_that_can_be_gone_back_to_is_wanted(tmp_path: Path) -> None:
    """Also when the one that took its place is gone: the stack file was changed many times since."""
    stack = make_stack(tmp_path)
    for name, leaving in (("before-2", 1), ("before-3", 2)):
        snapshot.take(stack.config, name, leaving=leaving)
        snapshot.count_in(stack.config, name)
    snapshot.prune(stack.config, [1, 8, 9])
    assert [path.name for path in snapshot.root(stack.config).iterdir()] == ["before-2"]
    assert snapshot.of_generation(stack.config, 1, [8, 9]) is not None


def test_empty_folders_links_and_what_a_cut_off_removal_leaves(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    data = stack.config.data_path / "webui"
    (data / "empty" / "deep").mkdir(parents=True)
    (data / "link").symlink_to("uploads")
    taken = snapshot.take(stack.config, "before-2")
    gone = snapshot.root(stack.config) / ".before-1.gone"
    gone.mkdir()
    (gone / "snapshot.json").write_text("{}")
    assert snapshot.find(stack.config, ".before-1.gone") is None
    snapshot.prune(stack.config, [2])
    assert not gone.exists()
    [aside] = snapshot.restore(stack.config, taken, ["webui"])
    assert (data / "empty" / "deep").is_dir() and (data / "link").is_symlink()
    assert (data / "link" / "paper.txt").exists()
    (data / "made-since").write_text("x")
    assert snapshot.take_back(stack.config, "webui", aside)
    assert not (data / "made-since").exists() and (data / "cache" / "again").exists()
    assert not snapshot.take_back(stack.config, "webui", aside), "once is enough"


@pytest.mark.parametrize("name", ["what?", "100%25", "a#b", "a b&c=d;e"])
def test_a_path_means_itself_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    stack = make_stack(tmp_path / name)
    folder = stack.config.data_path / "webui" / "uploads"
    with sqlite3.connect(folder / f"{name}.db") as database:
        database.execute("CREATE TABLE note (said TEXT)")
        database.execute("INSERT INTO note VALUES ('kept')")
    before = sorted(tmp_path.rglob("*"))
    taken = snapshot.take(stack.config, "before-2")
    copy = taken.path / "webui" / "uploads" / f"{name}.db"
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT said FROM note").fetchall() == [("kept",)]
    assert snapshot.migrated(stack.config, taken) == []
    stray = [path for path in tmp_path.rglob("*") if path not in before and "snapshots" not in path.parts]
    assert stray in ([], [stack.config.state_path]), "nothing is made beside it"


def test_a_file_that_only_begins_like_a_database_is_kept_as_it_is(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    folder = stack.config.data_path / "webui" / "uploads"
    garbage = b"SQLite format 3\0" + bytes(range(256)) * 20
    (folder / "strange").write_bytes(garbage)
    (folder / "strange-journal").write_text("of somebody's own")
    whole = folder / "whole.db"
    with contextlib.closing(sqlite3.connect(whole)) as database:
        database.execute("CREATE TABLE note (said TEXT)")
        database.executemany("INSERT INTO note VALUES (?)", [("x" * 500,)] * 100)
        database.commit()
    torn = whole.read_bytes()[:9000]
    (folder / "torn.db").write_bytes(torn)
    taken = snapshot.take(stack.config, "before-2").path / "webui" / "uploads"
    assert (taken / "strange").read_bytes() == garbage and (taken / "torn.db").read_bytes() == torn
    assert (taken / "strange-journal").read_text() == "of somebody's own"

    live = stack.config.data_path / "webui" / "webui.db"
    for side in ("-wal", "-shm"):
        live.with_name(live.name + side).unlink(missing_ok=True)
    live.write_bytes(garbage)
    with pytest.raises(StackctlError, match=r"webui\.db"):
        snapshot.take(stack.config, "before-3")
    assert snapshot.find(stack.config, "before-3") is None
    assert not list(snapshot.root(stack.config).glob(".*")), "nothing half is left on the disk"


def test_what_was_copied_ahead_is_only_used_when_nobody_wrote_since(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    data = stack.config.data_path / "webui"
    long_ago = time.time() - 100
    for name in ("still", "changed", "same-size", "gone"):
        (data / name).write_text(name)
        os.utime(data / name, (long_ago, long_ago))
    ahead = snapshot.copy_ahead(stack.config, "before-2")
    assert snapshot.find(stack.config, "before-2") is None, "on its own it is no snapshot"
    copied = {name: (ahead / "webui" / name).stat().st_ino for name in ("still", "changed", "same-size")}
    (data / "changed").write_text("changed since")
    (data / "same-size").write_text("SAME-SIZE")
    (data / "gone").unlink()
    (data / "new").write_text("new")
    with sqlite3.connect(data / "webui.db") as live:
        live.execute("INSERT INTO chat VALUES ('meanwhile')")
    taken = snapshot.take(stack.config, "before-2", leaving=1, copied=ahead)
    files = {path.name: path for path in (taken.path / "webui").iterdir() if path.is_file()}
    assert files["changed"].read_text() == "changed since" and files["same-size"].read_text() == "SAME-SIZE"
    assert "gone" not in files and files["new"].read_text() == "new"
    used_again = {name for name, inode in copied.items() if files[name].stat().st_ino == inode}
    assert used_again == {"still"} and not ahead.exists()
    with contextlib.closing(sqlite3.connect(files["webui.db"])) as database:
        assert database.execute("SELECT said FROM chat").fetchall() == [("remember me",), ("meanwhile",)]


def test_a_rollback_gets_the_data_of_the_last_version_that_stayed(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    for name, leaving, stayed in (("before-2", 1, False), ("before-3", 1, True), ("before-4", 3, False)):
        snapshot.take(stack.config, name, leaving=leaving)
        if stayed:
            snapshot.count_in(stack.config, name)
    found = snapshot.of_generation(stack.config, 1, [2, 3, 4])
    assert found is not None and found.name == "before-3"
    assert snapshot.of_generation(stack.config, 3, [4]) is None

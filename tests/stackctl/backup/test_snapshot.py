"""Snapshots for upgrades: whole or not there, restored beside what was, migrations seen."""

import sqlite3
from pathlib import Path

from stackctl.backup import snapshot
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
    snapshot.prune(stack.config, {"before-3"})
    assert [path.name for path in snapshot.root(stack.config).iterdir()] == ["before-3"]


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
    snapshot.prune(stack.config, {"before-2"})
    assert not gone.exists()
    [aside] = snapshot.restore(stack.config, taken, ["webui"])
    assert (data / "empty" / "deep").is_dir() and (data / "link").is_symlink()
    assert (data / "link" / "paper.txt").exists()
    (data / "made-since").write_text("x")
    assert snapshot.take_back(stack.config, "webui", aside)
    assert not (data / "made-since").exists() and (data / "cache" / "again").exists()
    assert not snapshot.take_back(stack.config, "webui", aside), "once is enough"

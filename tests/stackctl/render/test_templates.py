"""The cache of compiled templates: used where it is ours, done without where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.render import templates


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stackctl" / "templates"


def test_what_was_compiled_is_kept(cache: Path) -> None:
    templates.environment().get_template("stack.yaml.j2")
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == 1
    templates.environment().get_template("stack.yaml.j2")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept


def test_a_folder_that_others_can_write_is_not_run_from(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    environment = templates.environment()
    assert environment.bytecode_cache is None
    environment.get_template("stack.yaml.j2")
    assert list(cache.iterdir()) == []


def test_where_nothing_can_be_kept_it_renders_all_the_same(cache: Path) -> None:
    cache.parent.write_text("a file where the folder would be")
    assert templates.environment().get_template("stack.yaml.j2").render(name="t", services="", secrets={})

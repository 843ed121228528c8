"""The plan that is kept between runs: used while nothing changed, made anew when anything did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.errors import ConfigError
from stackctl.health import plan as plans

TEXT = """\
name: home
health: {fail_after: 4, textfile: "/tmp/x.prom"}
models: [a, {name: "b:7b", resident: true}]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STACKCTL_FILE", raising=False)
    path = tmp_path / "stack.yaml"
    path.write_text(TEXT)
    return path


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "stackctl" / "plans").glob("*.json"))


def test_kept_and_fresh_are_equal_and_nothing_heavy_is_imported_for_the_kept(
    file: Path, tmp_path: Path
) -> None:
    fresh = plans.load(str(file))
    assert (fresh.health.fail_after, fresh.models[1].name, fresh.models[1].resident) == (4, "b:7b", True)
    assert kept(tmp_path)[0].stat().st_mode & 0o077 == 0
    assert plans.load(str(file)) == fresh
    code = (
        "import sys\nfrom stackctl.health import plan\n"
        f"assert plan.load({str(file)!r}).health.fail_after == 4\n"
        "import stackctl.cli.health\n"
        "print([m for m in ('pydantic', 'yaml', 'docker', 'rich', 'jinja2', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_change_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plans.load(str(file)).health.fail_after == 4
    file.write_text(TEXT.replace("fail_after: 4", "fail_after: 5"))
    assert plans.load(str(file)).health.fail_after == 5
    file.with_name("stack.night.yaml").write_text("health: {fail_after: 6}\n")
    assert plans.load(str(file), "night").health.fail_after == 6
    assert plans.load(str(file)).health.fail_after == 5
    monkeypatch.setenv("TEXTFILE", "/tmp/one.prom")
    file.write_text(TEXT.replace("/tmp/x.prom", "${TEXTFILE}"))
    assert plans.load(str(file)).health.textfile == "/tmp/one.prom"
    monkeypatch.setenv("TEXTFILE", "/tmp/two.prom")
    assert plans.load(str(file)).health.textfile == "/tmp/two.prom"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1, "key": "x"}'])
def test_a_damaged_plan_is_made_anew(file: Path, tmp_path: Path, damage: str) -> None:
    plans.load(str(file))
    kept(tmp_path)[0].write_text(damage)
    assert plans.load(str(file)).health.fail_after == 4
    assert json.loads(kept(tmp_path)[0].read_text())["plan"]["stack"] == "home"


def test_a_bad_file_is_refused_even_after_a_good_one(file: Path, tmp_path: Path) -> None:
    plans.load(str(file))
    file.write_text("health: {fail_after: 0}\n")
    with pytest.raises(ConfigError):
        plans.load(str(file))
    file.unlink()
    with pytest.raises(ConfigError):
        plans.load(str(file))

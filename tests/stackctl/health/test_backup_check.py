"""The backup check on real archives: none, fresh, old, damaged, not copied."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stackctl.backup.archive import Writer
from stackctl.health.model import Status
from stackctl.health.plan import Plan
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import look

DAY = 86400


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return plan(backup={"to": [str(tmp_path / "elsewhere")]})


def make(found: Plan, age: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - age))
    path = found.state_path / "backups" / f"test-{stamp}.backup"
    path.parent.mkdir(parents=True, exist_ok=True)
    return Writer(path).finish({"stack": "test", "created": stamp, "secrets": False})


def copy(found: Plan, path: Path) -> None:
    folder = Path(found.backup_folders[0])
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())


def test_none_is_critical_only_where_one_was_asked_for(asked: Plan) -> None:
    assert look(asked, "backup").status is Status.CRITICAL
    assert look(plan(), "backup").skipped


@pytest.mark.parametrize(
    ("age", "status"), [(3600, Status.OK), (3 * DAY, Status.WARNING), (8 * DAY, Status.CRITICAL)]
)
def test_age_counts_from_the_name(asked: Plan, age: float, status: Status) -> None:
    make(asked, 30 * DAY)
    copy(asked, make(asked, age))
    result = look(asked, "backup")
    assert result.status is status, result
    assert result.memory is not None and result.memory["verified"].startswith("test-")


def test_a_backup_that_was_not_copied_is_a_warning(asked: Plan) -> None:
    path = make(asked, 60)
    result = look(asked, "backup")
    assert (result.status, "not in" in result.summary) == (Status.WARNING, True)
    copy(asked, path)
    assert look(asked, "backup").status is Status.OK


def test_a_flipped_bit_is_found_once_per_backup(asked: Plan) -> None:
    path = make(asked, 60)
    copy(asked, path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(raw)
    result = look(asked, "backup")
    assert (result.status, "is damaged" in result.summary) == (Status.CRITICAL, True)
    assert result.memory is None
    assert look(asked, "backup", memory={"verified": path.name}).status is Status.OK

"""Silences by hand and by calendar."""

from __future__ import annotations

import concurrent.futures
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from stackctl.config.health import Maintenance
from stackctl.health.moment import Moment
from stackctl.health.silence import SilenceFile, covering, in_window, matches, planned
from tests.stackctl.health.support.plans import plan

NOW = Moment(1_700_000_000.0, 1000.0, "boot-1")


def test_a_silence_ends_by_itself_and_by_hand(tmp_path: Path) -> None:
    file = SilenceFile(tmp_path)
    first = file.add(("container",), 3600, "new disk", "ann", NOW)
    file.add(("engine",), 60, "", "ann", NOW)
    assert covering(file.active(NOW), "container.engine", NOW) == first
    assert covering(file.active(NOW), "webui", NOW) is None
    later = NOW.plus(61)
    assert [item.id for item in file.active(later)] == [first.id]
    assert file.remove(first.id, later) == [first]
    assert file.active(later) == []
    assert file.remove("nothing", later) == []


def test_setting_the_clock_neither_ends_nor_extends_it(tmp_path: Path) -> None:
    file = SilenceFile(tmp_path)
    file.add(("*",), 3600, "", "ann", NOW)
    assert file.active(replace(NOW.plus(10), wall=NOW.wall + 10 * 86400))
    assert not file.active(replace(NOW.plus(3601), wall=NOW.wall - 86400))
    # After a reboot the wall clock is all there is.
    assert file.active(Moment(NOW.wall + 1800, 5, "boot-2"))
    assert not file.active(Moment(NOW.wall + 3700, 5, "boot-2"))


def test_many_at_once_lose_none(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: SilenceFile(tmp_path).add((f"c{n}",), 60, "", "x", NOW), range(24)))
    assert len(SilenceFile(tmp_path).active(NOW)) == 24


def test_a_broken_file_silences_nothing_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / "silences.json").write_text("{broken")
    assert SilenceFile(tmp_path).active(NOW) == []
    assert len(list(tmp_path.glob("silences.broken-*"))) == 1


@pytest.mark.parametrize(
    ("patterns", "check", "expected"),
    [
        (("*",), "engine", True),
        (("container",), "container.webui", True),
        (("container.w*",), "container.webui", True),
        (("container.engine",), "container.webui", False),
        (("eng",), "engine", False),
    ],
)
def test_patterns(patterns: tuple[str, ...], check: str, expected: bool) -> None:
    assert matches(patterns, check) is expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-20 23:00", True),
        ("2026-11-20 22:29", False),
        ("2026-11-21 01:00", True),
        ("2026-11-21 02:00", False),
        ("2026-11-21 23:00", False),
        ("2026-11-22 01:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_starts_on(when: str, expected: bool) -> None:
    hours = {"days": ["fri"], "from": "22:30", "to": "02:00", "timezone": "Europe/Berlin"}
    window = plan(health={"business_hours": hours}).health.business_hours
    assert window is not None
    at = datetime.fromisoformat(when).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert in_window(window, at) is expected


def test_planned_maintenance_covers_its_checks_only() -> None:
    windows = plan(health={"maintenance": [{"checks": ["backup"], "reason": "sunday"}]}).health.maintenance
    assert planned(windows, "backup", NOW) == windows[0]
    assert planned(windows, "engine", NOW) is None


@pytest.mark.parametrize(
    "bad", [{"from": "25:00"}, {"days": ["someday"]}, {"timezone": "Mars/Olympus"}, {"form": "x"}]
)
def test_bad_windows_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Maintenance.model_validate(bad)

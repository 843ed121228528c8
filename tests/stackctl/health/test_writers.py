"""The four forms of a report, each held to its own contract; the Prometheus form by promtool itself."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from stackctl.health.evaluator import CheckState, Policy
from stackctl.health.model import Metric, Status
from stackctl.health.writers import document, nagios, table, textfile
from tests.stackctl.health.support.reports import report, row
from tests.support.gates import need_program

EVIL = "line one\nline two | 'x'=1;2 ' \" \\"

_VALUE = r"'(?:[^'\n]|'')+'=-?\d+(\.\d+)?(s|%|B|c|)(;-?[\d.]*){0,4}"
PLUGIN_LINE = re.compile(rf"^(OK|WARNING|CRITICAL|UNKNOWN): [^|\n]+( \|( {_VALUE})+)?$")


@pytest.mark.parametrize("status", list(Status))
def test_one_line_that_a_plugin_parser_takes(status: Status) -> None:
    line = nagios.line(report(row("disk", status, EVIL), row("it's", Status.OK)))
    assert PLUGIN_LINE.match(line), line
    assert line.startswith(f"{status.name}: home: ")
    assert "'disk.size'=3.5s;5;9" in line
    assert "'it''s.size'" in line


def test_large_numbers_come_without_decimals() -> None:
    assert nagios.perfdata(Metric("free", 66755055616.4, "B", 27055317401.6), "disk") == (
        "'disk.free'=66755055616B;27055317402"
    )


def test_what_has_nothing_to_look_at_says_why() -> None:
    skipped = [
        row(name, Status.OK, "no GPU is given to the engine", skipped=True) for name in ("gpu", "vram")
    ]
    assert report(*skipped).summary() == (
        "nothing to look at: gpu: no GPU is given to the engine; vram: no GPU is given to the engine"
    )
    assert report(*skipped, row("disk", Status.OK)).summary() == "1 checks are well"


def test_critical_beats_warning_beats_unknown() -> None:
    rows = [row("a", Status.UNKNOWN), row("b", Status.WARNING), row("c", Status.CRITICAL, "gone")]
    line = nagios.line(report(*rows))
    assert line.startswith("CRITICAL: home: c: gone (and 2 more)")
    assert report(*rows[:2]).status() is Status.WARNING


def test_what_waits_for_a_cause_adds_nothing_to_it() -> None:
    rows = [row("docker", Status.WARNING), row("x", Status.UNKNOWN, blocked_by="docker")]
    assert report(*rows).status() is Status.WARNING
    assert report(rows[1]).status() is Status.OK
    text = table.table(report(*rows), {}, colour=False)
    assert "not looked at because of docker: x" in text


def test_the_confirmed_view_forgives_one_bad_look() -> None:
    bad = replace(row("a", Status.CRITICAL), state=CheckState(failures=1))
    assert report(bad).status() is Status.CRITICAL
    assert report(bad).status(confirmed_only=True) is Status.OK
    assert "[seen 1 of 3 times]" in table.table(report(bad), {"a": Policy()}, colour=False)


def test_the_table_says_what_to_do_and_puts_trouble_first() -> None:
    text = table.table(
        report(row("a", Status.OK), row("b", Status.CRITICAL, "gone", details=("last words",))),
        {},
        colour=False,
    )
    lines = text.splitlines()
    assert lines[1].startswith("CRITICAL b")
    assert lines[2].strip() == "last words"
    assert lines[3].strip() == "fix: mend b"
    assert lines[4].startswith("OK       a")
    assert "\x1b[" not in text
    assert "\x1b[31m" in table.table(report(row("b", Status.CRITICAL)), {}, colour=True)


def test_json_has_a_schema_and_everything() -> None:
    data = json.loads(json.dumps(document.document(report(row("a", Status.CRITICAL, EVIL)))))
    assert data["schema"] == "stackctl.health/1"
    assert data["status"] == data["confirmed_status"] == "CRITICAL"
    found = data["checks"][0]
    assert found["summary"] == EVIL
    assert found["fix"] == "mend a"
    assert found["confirmed"]["status"] == "CRITICAL"


def test_textfile_is_atomic_and_world_readable(tmp_path: Path) -> None:
    path = tmp_path / "stackctl.prom"
    textfile.write(path, report(row("a", Status.OK)))
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["stackctl.prom"]
    text = path.read_text()
    assert 'stackctl_check_status{stack="home",check="a"} 0' in text
    assert 'stackctl_generation_info{stack="home",generation="7"} 1' in text


@pytest.mark.peer
def test_promtool_accepts_the_textfile() -> None:
    rows = [row("a", Status.CRITICAL, EVIL), row('we"ird\\', Status.OK)]
    odd = replace(rows[0], result=replace(rows[0].result, metrics=(Metric('q"uote', 1e18, "B"),)))
    promtool = need_program("promtool")
    text = textfile.render(report(odd, rows[1]))
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + text

"""The audit log: every line is JSON whatever is in it, no secret in any form, and a full disk
is no failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackctl.redact import Secret, redacted, redacted_values
from stackctl.runtime import audit


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["stackctl", "run", "--set", 'api_key="quo\\ted" rest'])
    return tmp_path / "stackctl" / "t" / "audit.jsonl"


NASTY = 'line one\n"pass\\word"\tä'


@pytest.mark.parametrize(
    "text",
    [
        NASTY,
        "password=hunter2 and more",
        'stopped: {"token": "abc", "x": 1}',
        "Authorization: Bearer abc.def",
        "postgres://me:pw@db/x",
        'secret: "a b c"',
    ],
)
def test_every_line_is_json_and_holds_no_secret(log: Path, text: str) -> None:
    Secret(NASTY)
    audit.record("t", "test", result=text, more={text: [text, 5, None, True]})
    (line,) = log.read_text().splitlines()
    entry = json.loads(line)
    assert entry["more"][redacted(text)] == [redacted(text), 5, None, True]
    assert "quo" not in line and entry["argv"][0] == "run"
    for hidden in ("hunter2", "abc.def", ":pw@", "a b c", "word", '"abc'):
        assert hidden not in entry["result"].replace("password", "")


def test_values_that_are_no_text_stay_what_they_are() -> None:
    assert redacted_values({"a": (1, 2.5, None, False), "b": Path("/x")}) == {
        "a": [1, 2.5, None, False],
        "b": "/x",
    }


def test_a_torn_line_does_not_swallow_the_next(log: Path) -> None:
    audit.record("t", "one", result="ok")
    with log.open("a") as file:
        file.write('{"action": "half')
    audit.record("t", "two", result="ok")
    assert [entry["action"] for entry in audit.entries("t")] == ["one", "two"]


def test_a_full_disk_is_said_and_changes_no_outcome(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    audit.record("t", "up", result="ok")
    assert "warning: not in the audit log: up: No space left" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["redis://:pw@h", "x://a:b c", "http://h:80/p@q"])
def test_addresses_stay_readable(text: str) -> None:
    assert redacted(text) == text.replace(":pw@", ":***@")

"""What a run says takes a bounded room on the disk, and readers are never told a hole for output."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from stackctl.errors import StackctlError
from stackctl.hosts import output, sessions
from tests.stackctl.tunnel.conftest import eventually

LINES = 100_000
ALL = b"".join(b"%09d\n" % number for number in range(LINES))


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(output, "KEEP", 64 << 10)
    monkeypatch.setattr(output, "SLACK", 64 << 10)
    monkeypatch.setattr(output, "LOOK_EVERY", 0.02)


def talkative(gate: Path) -> list[str]:
    program = (
        "import pathlib, sys, time\n"
        f"sys.stdout.write(''.join('%09d\\n' % n for n in range({LINES}))); sys.stdout.flush()\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
        "print('the end')\n"
    )
    return [sys.executable, "-c", program]


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_the_newest_part_is_kept(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    sessions.start("talkative", talkative(gate))
    said = sessions.root() / "talkative" / "out"
    eventually(lambda: said.stat().st_size == len(ALL) and on_disk(said) <= 132 << 10, 20, "a hole")
    first, _ = sessions.places("talkative", 0, 0)
    assert len(ALL) - (132 << 10) < first <= len(ALL) - (64 << 10)
    assert sessions.places("talkative", len(ALL), 0) == (len(ALL), 0)
    gate.touch()
    # A person is told what is missing; a program has to come again from where there is something.
    out, err = io.BytesIO(), io.BytesIO()
    assert sessions.attach("talkative", out, err) == 0
    assert out.getvalue() == ALL[first:] + b"the end\n"
    assert err.getvalue() == f"note: {first} bytes of earlier stdout are no longer kept\n".encode()
    assert sessions.attach("talkative", io.BytesIO(), err, skip=False) == sessions.BEHIND
    out = io.BytesIO()
    assert sessions.attach("talkative", out, err, out_from=first, skip=False) == 0
    assert out.getvalue() == ALL[first:] + b"the end\n"


def test_a_reader_that_is_overtaken_hears_of_it(tmp_path: Path) -> None:
    said = tmp_path / "out"
    said.write_bytes(ALL[:100])
    reader, got = output.Reader(said, 0), io.BytesIO()
    assert reader.copy(got) == 100
    with said.open("ab") as file:
        file.write(ALL[100:])
    assert output.trim(said)
    with pytest.raises(output.Behind) as behind:
        reader.copy(got)
    assert got.getvalue() == ALL[:100]
    reader.place = behind.value.place
    reader.copy(got)
    assert got.getvalue() == ALL[:100] + ALL[behind.value.place :]
    reader.close()


def test_where_there_are_no_holes_all_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, size: int) -> None:
        raise OSError(95, "operation not supported")

    monkeypatch.setattr(output, "_punch", refuse)
    said = tmp_path / "out"
    said.write_bytes(ALL)
    assert not output.trim(said)
    got = io.BytesIO()
    assert output.Reader(said, 0).copy(got) == len(ALL)
    assert got.getvalue() == ALL


def test_old_runs_go_when_all_have_said_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEEP_BYTES", 300 << 10)
    gate = tmp_path / "gate"
    gate.touch()
    for number in range(5):
        sessions.start(f"run-no-{number}", talkative(gate))
        assert sessions.attach(f"run-no-{number}", io.BytesIO(), io.BytesIO()) == 0
    known = [each.id for each in sessions.sessions()]
    assert known[-1] == "run-no-4"
    assert 2 <= len(known) <= 4, known
    with pytest.raises(StackctlError, match="no session 'run-no-0'"):
        sessions.attach("run-no-0", io.BytesIO(), io.BytesIO())

"""A disk that is full before, during or at the end of a run: it goes back all the same, and says so."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.errors import PreflightError
from stackctl.procedures import journal, use
from stackctl.procedures.engine import RunResult
from tests.stackctl.procedures.support import FRONT, Bench, page
from tests.support.small_disk import on_a_small_disk

ROOT = Path(__file__).parents[3]


def steps(bench: Bench, last: str = "['true']") -> tuple[str, ...]:
    one, two = bench.file("one"), bench.file("two")
    return (
        f"id: one\ntitle: T\nrun: [touch, {one}]\nundo: [rm, -f, {one}]",
        f"id: two\ntitle: T\nrun: {{command: 'touch {two}; seq 9999', shell: true}}\nundo: [rm, -f, {two}]",
        f"id: last\ntitle: T\nrun: {last}",
    )


def with_files_no_longer_than(size: int, run: Callable[[], RunResult]) -> RunResult:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        return run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_wherever_the_room_ends_the_run_goes_back(bench: Bench) -> None:
    """No line of the way back can be written either: it is walked all the same."""
    procedure = page(*steps(bench))
    whole = (bench.run(procedure).run_dir / journal.FILE).read_bytes().splitlines(True)
    endings = set()
    for line in range(1, len(whole) + 1):
        # In the middle of that line, as far as times of another length allow.
        room = max(sum(map(len, whole[:line])) + 60, len(procedure.text))
        shutil.rmtree(bench.runs)
        bench.file("one").unlink(missing_ok=True)
        bench.file("two").unlink(missing_ok=True)
        bench.said.clear()
        result = with_files_no_longer_than(
            room, lambda: use.start(procedure, {}, None, bench.runs, bench.person())
        )
        endings.add(result.result)
        there = bench.file("one").exists() or bench.file("two").exists()
        complete = result.result == "done" and len(journal.read(result.run_dir)) == len(whole)
        assert there == (result.result == "done"), f"{room}: {result}"
        assert complete == (not any("is not complete" in line for line in bench.said)), room
        assert b"}{" not in (result.run_dir / journal.FILE).read_bytes()
        if result.result != "done":
            assert result.error is not None and "the journal of this run" in result.error.what
            assert result.exit_code == (4 if result.undone else 1)
    assert endings == {"failed", "undone", "done"}


def test_the_reason_of_the_failure_is_told_when_the_room_ends_there(bench: Bench) -> None:
    whole = bench.run(page(*steps(bench, "['false']")))
    before_it = (whole.run_dir / journal.FILE).read_bytes().split(b'"phase": "run", "what": "false"')[0]
    result = with_files_no_longer_than(
        len(before_it) + 1, lambda: bench.run(page(*steps(bench, "['false']")))
    )
    assert (result.result, result.exit_code) == ("undone", 4)
    assert result.error is not None and "step last: exit 1" in result.error.what


def test_a_run_that_cannot_be_written_at_all_does_not_begin(bench: Bench) -> None:
    with pytest.raises(PreflightError, match=r"no run can begin: .* File too large") as refused:
        with_files_no_longer_than(10, lambda: bench.run(page(*steps(bench))))
    assert refused.value.fix == f"df -h {bench.runs}" and not bench.file("one").exists()


def test_a_torn_line_that_cannot_be_ended_is_told(bench: Bench) -> None:
    front = FRONT + "on_failure: stop\n"
    procedure = page(*steps(bench, "['false']"), front=front)
    first = use.start(procedure, {}, None, bench.runs, bench.person())
    assert first.result == "stopped"
    path = first.run_dir / journal.FILE
    with path.open("a") as file:
        file.write('{"event": "step.do')
    torn = path.read_bytes()
    with pytest.raises(PreflightError, match="no run can begin"):
        with_files_no_longer_than(
            len(torn), lambda: use.go_on(procedure, {}, None, bench.runs, bench.person(), undo=True)
        )
    assert path.read_bytes() == torn and bench.file("one").exists()
    assert use.go_on(procedure, {}, None, bench.runs, bench.person(), undo=True).result == "undone"


SCRIPT = """
import contextlib, sys
from pathlib import Path
from stackctl.procedures import document, journal, use
from stackctl.procedures.people import Person

disk, page = Path(sys.argv[1]), document.load(Path(sys.argv[2]))
runs, filler = disk / "runs", disk / "filler"

def fill():
    for size in (1 << 16, 1):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))

def run():
    return use.start(page, {"cause": sys.argv[3]}, None, runs, Person(say=print))

assert run().result == "done", "and the room is kept from now on"
fill()
again = run()
print("on a full disk:", again.result)
filler.unlink()
assert run().result == "done", "and it is kept again"
Path(sys.argv[3]).write_text("full")
ended = run()
print("while it fills:", ended.result, ended.exit_code, journal.fold(ended.run_dir).result)
assert not (disk / "one").exists()
"""


def test_what_is_kept_lets_a_run_begin_and_go_back_on_a_full_disk(tmp_path: Path) -> None:
    disk, cause, page_file = tmp_path / "disk", tmp_path / "cause", tmp_path / "demo.md"
    disk.mkdir()
    filling = f"test ! -s {cause} || cat /dev/zero > {disk}/filler || true"
    noisy = "for n in $(seq 40); do printf %100d $n; echo; done"
    page_file.write_text(
        f"---\n{FRONT}inputs:\n  cause: {{}}\n---\n"
        f"```step\nid: one\ntitle: T\nrun: [touch, {disk}/one]\nundo: [rm, -f, {disk}/one]\n```\n"
        f"```step\nid: fills\ntitle: T\nrun: {{command: '{filling}', shell: true}}\n"
        f"undo: [cp, {page_file}, {disk}/a-file-that-the-way-back-needs]\n```\n"
        + "".join(
            f"```step\nid: s{n}\ntitle: T\nrun: {{command: '{noisy}', shell: true}}\n```\n" for n in range(4)
        )
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    script = [sys.executable, str(tmp_path / "script.py"), str(disk), str(page_file), str(cause)]
    done = subprocess.run(
        [*on_a_small_disk(disk), *script],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on a full disk: done" in done.stdout
    assert "while it fills: undone 4 undone" in done.stdout, done.stdout

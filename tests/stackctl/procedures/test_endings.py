"""How a run ends: exit codes as documented, what is said of it, and how to go on after each."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from stackctl.errors import PreflightError
from stackctl.procedures import journal, use
from stackctl.procedures.resuming import ResumeRefused
from tests.stackctl.procedures.support import FRONT, Bench, page
from tests.stackctl.procedures.test_cli import stackctl
from tests.stackctl.procedures.test_crash import drive, write_page
from tests.support.stacks import PROGRAM, environment_for, wait_for
from tests.support.terminal import CTRL_C, CTRL_D, ENTER, Terminal

STUCK = "id: stuck\ntitle: T\nrun: ['true']\nundo: [test, -e, {0}]"


def made(path: Path, name: str = "first") -> str:
    return f"id: {name}\ntitle: T\nrun: [touch, {path}]\nundo: [rm, {path}]"


def test_after_exit_5_the_undo_that_failed_is_tried_again(bench: Bench) -> None:
    mended = bench.file("mended")
    procedure = page(made(bench.file("a")), STUCK.format(mended), "id: bad\ntitle: T\nrun: ['false']")
    first = use.start(procedure, {}, None, bench.runs, bench.person())
    assert (first.result, first.exit_code, first.undone) == ("undo-failed", 5, ("first",))
    again = use.go_on(procedure, {}, None, bench.runs, bench.person())
    assert again.exit_code == 5 and again.left_by_hand[0].startswith("stuck:")
    mended.touch()
    bench.said.clear()
    done = use.go_on(procedure, {}, None, bench.runs, bench.person())
    assert (done.result, done.exit_code) == ("undone", 4), "it did fail"
    assert done.error is not None and "step bad" in done.error.what
    assert not [line for line in bench.said if "[first]" in line], "what was undone is left alone"
    with pytest.raises(PreflightError, match="no run of demo is unfinished"):
        use.go_on(procedure, {}, None, bench.runs, bench.person())


def test_what_a_person_has_undone_is_recorded(bench: Bench) -> None:
    last = "id: last\ntitle: T\nirreversible: true\nconfirm: Really?\nrun: ['true']"
    procedure = page(STUCK.format("/nowhere"), last, "id: bad\ntitle: T\nrun: ['false']")
    first = use.start(procedure, {}, None, bench.runs, bench.person(assume_yes=True))
    assert first.exit_code == 5 and [line.partition(":")[0] for line in first.left_by_hand] == [
        "last",
        "stuck",
    ]
    answers = {"stuck": "done", "last": "done"}
    done = use.go_on(procedure, {}, None, bench.runs, bench.person(answers=answers))
    assert done.exit_code == 4 and set(done.undone) == {"stuck", "last"}
    assert "by hand: done" in (done.run_dir / "journal.jsonl").read_text()


def test_killed_while_it_went_back_it_still_says_why_it_failed(tmp_path: Path) -> None:
    for kill_after in range(17, 22):
        folder = tmp_path / str(kill_after)
        folder.mkdir()
        page_file = write_page(folder, "run: ['false']")
        assert drive(page_file, "start", kill_after).returncode == -signal.SIGKILL
        [record] = journal.history(folder / "runs")
        assert record.undoing and "step last" in record.cause
        assert drive(page_file, "resume").returncode == 4
        assert "step last" in journal.fold(record.run_dir).error


def test_an_undo_that_was_asked_for_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "procedures").mkdir()
    steps = "".join(
        f"```step\n{text}\n```\n"
        for text in (
            made(tmp_path / "a"),
            f"id: kept\ntitle: T\nrun: [touch, {tmp_path}/b]",
            "id: bad\ntitle: T\nrun: ['false']",
        )
    )
    front = FRONT.replace("demo", "mine") + "on_failure: stop\n"
    (tmp_path / "procedures" / "mine.md").write_text(f"---\n{front}---\n{steps}")
    assert stackctl(tmp_path, "run", "mine").returncode == 1
    assert stackctl(tmp_path, "run", "mine", "--resume").returncode == 1
    undone = stackctl(tmp_path, "run", "mine", "--undo", "--json")
    assert undone.returncode == 0, undone.stderr
    assert "went back: undone: first; what kept, bad did stays" in undone.stderr
    found = json.loads(undone.stdout)
    assert (found["result"], found["undone"], found["stays"]) == ("undone", ["first"], ["kept", "bad"])
    assert not (tmp_path / "a").exists() and (tmp_path / "b").exists()


def test_what_has_no_undo_is_said_to_stay(bench: Bench) -> None:
    kept = f"id: kept\ntitle: T\nrun: [touch, {bench.file('a')}]"
    result = bench.run(
        page(kept, "id: bad\ntitle: T\nverify: {file.exists: {path: /nowhere}}\ntimeout: 100ms")
    )
    assert (result.result, result.exit_code, result.stays) == ("failed", 4, ("kept",))


def test_going_on_with_the_number_of_a_process_that_is_another_one_now(tmp_path: Path, bench: Bench) -> None:
    page_file = write_page(bench.root, "run: ['true']")
    drive(page_file, "start", 6)
    [record] = journal.history(bench.runs)
    path = record.run_dir / "journal.jsonl"
    path.write_text(path.read_text().replace(f'"pid": {record.pid},', f'"pid": {os.getpid()},'))
    assert not journal.fold(record.run_dir).alive and drive(page_file, "resume").returncode == 0


def test_undo_is_refused_when_the_page_changed(bench: Bench) -> None:
    from stackctl.procedures import document

    page_file = write_page(bench.root, "run: ['true']")
    drive(page_file, "start", 9)
    page_file.write_text(page_file.read_text() + "\nOne more word.\n")
    changed = document.load(page_file)
    with pytest.raises(ResumeRefused, match="cannot be undone: demo was edited"):
        use.go_on(changed, {}, None, bench.runs, bench.person(), undo=True)
    assert (
        use.go_on(changed, {}, None, bench.runs, bench.person(), undo=True, accept_changes=True).exit_code
        == 0
    )


def test_retries_end_with_the_limit_of_the_whole_run(bench: Bench) -> None:
    step = "id: a\ntitle: A\nrun: ['false']\nretries: 20\nretry_delay: 10m"
    began = time.monotonic()
    result = bench.run(page(step, front=FRONT + "timeout: 2s\n"))
    assert result.exit_code == 1 and time.monotonic() - began < 10


def test_a_question_has_a_time_limit_and_an_end(bench: Bench) -> None:
    def slow(_question: str, _kind: str) -> str:
        time.sleep(30)
        return "yes"

    def gone(_question: str, _kind: str) -> str:
        raise EOFError

    step = "id: a\ntitle: A\nmanual: {ask: 'Well?', answer: yes-no}\ntimeout: 200ms"
    late = bench.run(page(step), ask=slow)
    assert (late.result, late.exit_code) == ("stopped", 3) and late.error is not None
    assert (
        "nobody answered" in late.error.what and late.error.fix == "stackctl run demo --resume --answer a=yes"
    )
    closed = bench.run(page(step), ask=gone)
    assert (closed.result, closed.exit_code) == ("stopped", 3)


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_at_a_question_one_ctrl_c_is_enough(tmp_path: Path) -> None:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "asks.md").write_text(
        f"---\n{FRONT.replace('demo', 'asks')}---\n```step\nid: one\ntitle: T\nmanual: Is it done?\n```\n"
        f"```step\nid: two\ntitle: T\nrun: [touch, '{tmp_path}/two']\nconfirm: Really?\n```\n"
    )
    command = ["env", "-C", str(tmp_path), PROGRAM, "run", "asks"]
    with Terminal(command, environment_for(tmp_path)) as terminal:
        terminal.expect("when it is done: ")
        wait_for(lambda: sleeps(terminal.process.pid), "it waits for the answer")
        terminal.type(CTRL_C)
        assert terminal.ends() == 130, terminal.seen
        assert "fix: stackctl run asks --resume" in terminal.seen
    with Terminal([*command, "--resume"], environment_for(tmp_path)) as terminal:
        terminal.expect("press Enter")
        terminal.type(ENTER)
        terminal.expect("Really?")
        terminal.type(CTRL_D)
        assert terminal.ends() == 3, terminal.seen
        assert "the terminal is closed" in terminal.seen and not (tmp_path / "two").exists()

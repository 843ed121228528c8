"""kill -9 after every single journal line, then resume or undo; signals at step borders."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from stackctl.procedures import journal, use
from stackctl.procedures.resuming import ResumeRefused
from tests.stackctl.procedures import driver
from tests.stackctl.procedures.support import Bench, page

ROOT = Path(__file__).parents[3]


def write_page(tmp_path: Path, last: str) -> Path:
    steps = []
    for name in ("one", "two"):
        path, log = tmp_path / name, tmp_path / "log"
        steps.append(
            f"```step\nid: {name}\ntitle: T\ncheck: {{file.exists: {{path: {path}}}}}\n"
            f"run: {{command: 'echo {name} >> {log}; touch {path}', shell: true}}\n"
            f"verify: {{file.exists: {{path: {path}}}}}\nundo: [rm, -f, {path}]\n```\n"
        )
    steps.append(f"```step\nid: last\ntitle: T\n{last}\n```\n")
    target = tmp_path / "demo.md"
    target.write_text(
        "---\nid: demo\ntitle: T\nrequires: {stack: false}\nlock: none\n---\n\n" + "\n".join(steps)
    )
    return target


@dataclass
class Ended:
    returncode: int


def drive(page_file: Path, mode: str, kill_after: int | None = None) -> Ended:
    """In a forked process, so that SIGKILL is the real one and a run costs milliseconds."""
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            code = driver.drive(
                page_file, page_file.parent / "runs", mode, kill_after, say=lambda _text: None
            )
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status))


@pytest.mark.parametrize("part", range(4))
def test_killed_after_any_line_then_resumed(tmp_path: Path, part: int) -> None:
    for kill_after in range(1 + part, 40, 4):
        folder = tmp_path / str(kill_after)
        folder.mkdir()
        page_file = write_page(folder, "run: ['true']")
        first = drive(page_file, "start", kill_after)
        if first.returncode == 0:
            assert kill_after > 10, "the run has more transitions than that"
            return
        assert first.returncode == -signal.SIGKILL
        [record] = journal.history(folder / "runs")
        if record.result == "done":
            continue
        second = drive(page_file, "resume")
        assert second.returncode == 0
        assert (folder / "one").exists() and (folder / "two").exists()
        # A step is never run twice when its state was reached: at most the one under way is repeated.
        assert sorted(set((folder / "log").read_text().split())) == ["one", "two"]
        assert journal.fold(record.run_dir).result == "done"


def test_killed_in_the_middle_of_undo_then_resumed(tmp_path: Path) -> None:
    for kill_after in range(12, 24):
        folder = tmp_path / str(kill_after)
        folder.mkdir()
        page_file = write_page(folder, "run: ['false']")
        first = drive(page_file, "start", kill_after)
        assert first.returncode in (-signal.SIGKILL, 4)
        if first.returncode == 4:
            return
        second = drive(page_file, "resume")
        [record] = journal.history(folder / "runs")
        if record.result != "undone":
            assert second.returncode in (0, 4)
        assert not (folder / "one").exists() and not (folder / "two").exists()


def test_undo_of_a_killed_run(tmp_path: Path) -> None:
    page_file = write_page(tmp_path, "run: ['true']")
    assert drive(page_file, "start", 9).returncode == -signal.SIGKILL
    assert (tmp_path / "one").exists()
    assert drive(page_file, "undo").returncode == 0
    assert not (tmp_path / "one").exists()


def test_torn_last_line_is_ignored_and_not_glued_to(tmp_path: Path) -> None:
    page_file = write_page(tmp_path, "run: ['true']")
    drive(page_file, "start", 6)
    [record] = journal.history(tmp_path / "runs")
    with (record.run_dir / "journal.jsonl").open("a") as file:
        file.write('{"at": "2026-01-01T00:00:00", "event": "step.do')
    assert drive(page_file, "resume").returncode == 0
    lines = (record.run_dir / "journal.jsonl").read_text().splitlines()
    torn = [line for line in lines if not line.endswith("}")]
    assert len(torn) == 1
    assert json.loads(lines[-1])["event"] == "run.finished"


def test_what_rests_on_a_step_that_is_done_again_is_done_again(bench: Bench) -> None:
    """A gate that held for what is no longer there says nothing of what was put in its place."""
    there, log, go = bench.file("there"), bench.file("log"), bench.file("go")
    front = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\non_failure: stop\n"
    note = "id: {0}\ntitle: T\nrun: {{command: 'echo {0} >> {1}', shell: true}}"
    procedure = page(
        note.format("before", log),
        f"id: switch\ntitle: T\ncheck: {{file.exists: {{path: {there}}}}}\nrun: [touch, {there}]",
        note.format("gate", log),
        f"id: last\ntitle: T\nrun: [test, -e, {go}]",
        front=front,
    )
    assert use.start(procedure, {}, None, bench.runs, bench.person()).result == "stopped"
    assert use.go_on(procedure, {}, None, bench.runs, bench.person()).result == "stopped"
    assert log.read_text().split() == ["before", "gate"], "nothing had to be done again"
    there.unlink()
    go.touch()
    assert use.go_on(procedure, {}, None, bench.runs, bench.person()).result == "done"
    assert log.read_text().split() == ["before", "gate", "gate"]


def test_resume_is_refused_when_the_page_changed(bench: Bench) -> None:
    page_file = write_page(bench.root, "run: ['true']")
    drive(page_file, "start", 6)
    page_file.write_text(page_file.read_text() + "\nOne more word.\n")
    from stackctl.procedures import document

    with pytest.raises(ResumeRefused, match="was edited"):
        use.go_on(document.load(page_file), {}, None, bench.runs, bench.person())
    done = use.go_on(document.load(page_file), {}, None, bench.runs, bench.person(), accept_changes=True)
    assert done.result == "done"


def test_resume_is_refused_when_the_inputs_changed(bench: Bench) -> None:
    front = (
        "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\non_failure: stop\n"
        + "inputs:\n  a: {default: one}\n"
    )
    procedure = page("id: x\ntitle: X\nrun:\n  argv: [test, '${{ inputs.a }}', '=', two]", front=front)
    assert use.start(procedure, {}, None, bench.runs, bench.person()).result == "stopped"
    with pytest.raises(ResumeRefused, match="inputs"):
        use.go_on(procedure, {"a": "two"}, None, bench.runs, bench.person())
    done = use.go_on(procedure, {"a": "two"}, None, bench.runs, bench.person(), accept_changes=True)
    assert done.result == "done"


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_the_step_border(tmp_path: Path, number: int, code: int) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    page_file = tmp_path / "demo.md"
    page_file.write_text(
        "---\nid: demo\ntitle: T\nrequires: {stack: false}\nlock: none\n---\n"
        f"```step\nid: one\ntitle: T\n"
        f"run: {{command: 'touch {began}; while [ ! -e {go} ]; do sleep 0.02; done', "
        f"shell: true}}\n```\n"
        f"```step\nid: two\ntitle: T\nrun: [touch, {tmp_path / 'two'}]\n```\n"
    )
    argv = [
        sys.executable,
        "-m",
        "tests.stackctl.procedures.driver",
        str(page_file),
        str(tmp_path / "runs"),
        "start",
    ]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    _wait_for(began)
    os.kill(process.pid, number)
    assert process.stdout is not None
    for line in process.stdout:
        if "stopping when this step is over" in line:
            break
    go.touch()
    assert process.wait(timeout=30) == code
    assert not (tmp_path / "two").exists()
    [record] = journal.history(tmp_path / "runs")
    assert record.steps["one"].state == "done" and record.result == "interrupted"
    assert drive(page_file, "resume").returncode == 0
    assert (tmp_path / "two").exists()


def test_a_second_signal_stops_now(tmp_path: Path) -> None:
    began = tmp_path / "began"
    page_file = tmp_path / "demo.md"
    page_file.write_text(
        "---\nid: demo\ntitle: T\nrequires: {stack: false}\nlock: none\n---\n"
        f"```step\nid: one\ntitle: T\nrun: {{command: 'touch {began}; sleep 300', shell: true}}\n```\n"
    )
    argv = [
        sys.executable,
        "-m",
        "tests.stackctl.procedures.driver",
        str(page_file),
        str(tmp_path / "runs"),
        "start",
    ]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    _wait_for(began)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    for line in process.stdout:
        if "stopping when this step is over" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 130
    [record] = journal.history(tmp_path / "runs")
    assert record.steps["one"].state == "running" and record.resumable

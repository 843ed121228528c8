"""check -> run -> verify, undo, retries, limits, people: on real files and real processes."""

import time

import pytest

from stackctl.errors import PreflightError
from stackctl.procedures import journal
from tests.stackctl.procedures.support import Bench, page


def touch(bench: Bench, name: str, *, undo: bool = True, extra: str = "") -> str:
    path = bench.file(name)
    lines = [
        f"id: {name}",
        f"title: Make {name}",
        f"check: {{file.exists: {{path: {path}}}}}",
        f"run: [touch, {path}]",
    ]
    if undo:
        lines.append(f"undo: [rm, {path}]")
    return "\n".join(lines) + ("\n" + extra if extra else "")


def test_runs_in_order_and_skips_what_is_so_already(bench: Bench) -> None:
    bench.file("a").touch()
    result = bench.run(page(touch(bench, "a"), touch(bench, "b")))
    assert (result.result, result.exit_code) == ("done", 0)
    assert result.steps["a"].state == "skipped"
    assert result.steps["b"].state == "done"
    assert any("skipped, already so" in line for line in bench.said)
    again = bench.run(page(touch(bench, "a"), touch(bench, "b")))
    assert [step.state for step in again.steps.values()] == ["skipped", "skipped"]


def test_failure_walks_undo_backwards_and_exits_4(bench: Bench) -> None:
    log = bench.file("log")
    step = "id: {0}\ntitle: T\nrun: ['true']\nundo: {{command: 'echo {0} >> {1}', shell: true}}"
    result = bench.run(
        page(
            step.format("one", log),
            step.format("two", log),
            "id: bad\ntitle: T\nrun: ['false']\nundo: ['true']",
        )
    )
    assert (result.result, result.exit_code) == ("undone", 4)
    assert log.read_text().split() == ["two", "one"]
    assert result.error is not None and "exit 1" in result.error.what


def test_a_step_that_was_skipped_is_not_undone(bench: Bench) -> None:
    bench.file("mine").touch()
    result = bench.run(page(touch(bench, "mine"), touch(bench, "new"), "id: bad\ntitle: T\nrun: ['false']"))
    assert result.exit_code == 4
    assert bench.file("mine").exists(), "it was there before the run"
    assert not bench.file("new").exists()


def test_the_failed_step_itself_is_undone(bench: Bench) -> None:
    path = bench.file("half")
    step = f"id: half\ntitle: T\nrun: {{command: 'touch {path}; exit 3', shell: true}}\nundo: [rm, {path}]"
    result = bench.run(page(step))
    assert result.exit_code == 4 and not path.exists()


def test_an_undo_that_fails_never_stops_the_walk_and_ends_in_5(bench: Bench) -> None:
    result = bench.run(
        page(
            touch(bench, "first"),
            "id: stuck\ntitle: T\nrun: ['true']\nundo: ['false']",
            "id: bad\ntitle: T\nrun: ['false']",
        )
    )
    assert (result.result, result.exit_code) == ("undo-failed", 5)
    assert not bench.file("first").exists(), "the walk went on"
    assert len(result.left_by_hand) == 1 and result.left_by_hand[0].startswith("stuck:")
    assert journal.fold(result.run_dir).left_by_hand == list(result.left_by_hand)


def test_nothing_changed_keeps_the_error_s_own_code(bench: Bench) -> None:
    result = bench.run(
        page("id: a\ntitle: A\nverify: {file.exists: {path: /nowhere/at/all}}\ntimeout: 100ms")
    )
    assert (result.result, result.exit_code) == ("failed", 4)
    assert result.error is not None and "/nowhere/at/all does not exist" in result.error.what


def test_on_failure_stop_leaves_what_was_done(bench: Bench) -> None:
    front = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\non_failure: stop\n"
    result = bench.run(page(touch(bench, "a"), "id: bad\ntitle: T\nrun: ['false']", front=front))
    assert (result.result, result.exit_code) == ("stopped", 1)
    assert bench.file("a").exists()


def test_verify_is_asked_until_it_holds(bench: Bench) -> None:
    path = bench.file("late")
    step = (
        "id: a\ntitle: A\n"
        f"run: {{command: '(sleep 0.3; touch {path}) & sleep 0.6', shell: true}}\n"
        f"verify: {{file.exists: {{path: {path}}}}}"
    )
    assert bench.run(page(step)).result == "done"


def test_time_limit_ends_the_program_and_its_children(bench: Bench) -> None:
    pid_file = bench.file("pid")
    step = (
        "id: slow\ntitle: T\n"
        + f"run: {{command: 'sleep 300 & echo $! > {pid_file}; wait', shell: true}}\ntimeout: 500ms"
    )
    began = time.monotonic()
    result = bench.run(page(step))
    assert time.monotonic() - began < 10
    assert (
        result.exit_code == 4 and result.error is not None and "longer than the step may" in result.error.what
    )
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < deadline, "the child of the child is still there"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_procedure_s_own_limit_holds(bench: Bench) -> None:
    front = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\ntimeout: 300ms\n"
    result = bench.run(page("id: a\ntitle: A\nrun: [sleep, '60']", front=front))
    assert result.exit_code == 4 and result.error is not None and "whole procedure" in result.error.what


def test_retries(bench: Bench) -> None:
    tries = bench.file("tries")
    step = (
        f"id: a\ntitle: A\nrun: {{command: 'echo x >> {tries}; test $(wc -l < {tries}) -ge 3', "
        "shell: true}\n"
        "retries: 2\nretry_delay: 10ms"
    )
    assert bench.run(page(step)).result == "done"
    assert len(tries.read_text().split()) == 3


def test_inputs_and_results_of_steps_flow(bench: Bench) -> None:
    front = (
        "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\n"
        + "inputs:\n  who: {required: true}\n  loud: {type: boolean, default: false}\n"
    )
    out = bench.file("out")
    procedure = page(
        "id: greet\ntitle: T\nrun:\n  argv: [echo, 'hello ${{ inputs.who }}']",
        f"id: keep\ntitle: T\nrun:\n  file.write:\n    path: {out}\n    text: ${{{{ steps.greet.output }}}}",
        "id: shout\ntitle: T\nwhen: inputs.loud and steps.keep.state == 'done'\nrun: ['false']",
        front=front,
    )
    result = bench.run(procedure, {"who": "you; rm -rf /"})
    assert result.result == "done" and out.read_text() == "hello you; rm -rf /"
    assert result.steps["shout"].state == "not-needed"


def test_a_value_cannot_become_shell_code(bench: Bench) -> None:
    front = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\ninputs:\n  name: {required: true}\n"
    step = (
        f"id: a\ntitle: A\nrun:\n  command: echo ${{{{ inputs.name }}}} > {bench.file('out')}\n  shell: true"
    )
    evil = f"$(touch {bench.file('evil')})'`touch {bench.file('evil')}`"
    assert bench.run(page(step, front=front), {"name": evil}).result == "done"
    assert bench.file("out").read_text().rstrip("\n") == evil and not bench.file("evil").exists()


def test_secrets_stay_out_of_the_journal(bench: Bench) -> None:
    front = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\ninputs:\n  key: {secret: true}\n"
    result = bench.run(
        page("id: a\ntitle: A\nrun:\n  argv: [echo, '${{ inputs.key }}']", front=front),
        {"key": "s3cr3t-värde"},
    )
    for path in result.run_dir.iterdir():
        assert "s3cr3t" not in path.read_text()


def test_manual_and_confirm(bench: Bench) -> None:
    manual = "id: look\ntitle: Look\nmanual: {ask: 'Is the light green?', answer: yes-no}"
    dangerous = "id: go\ntitle: Go\nconfirm: Really?\nrun: ['true']"
    with pytest.raises(PreflightError, match="no terminal"):
        bench.run(page(manual))
    with pytest.raises(PreflightError, match="Really"):
        bench.run(page(dangerous))
    assert not bench.runs.exists(), "refused before anything began"
    asked: list[str] = []

    def ask(question: str, _kind: str) -> str:
        asked.append(question)
        return "yes"

    result = bench.run(page(manual, dangerous), ask=ask)
    assert result.result == "done" and asked == ["Is the light green?", "Really?"]
    assert journal.fold(result.run_dir).steps["look"].answer == "yes"
    assert bench.run(page(manual, dangerous), ask=lambda _q, _k: "no").exit_code == 3
    assert bench.run(page(manual, dangerous), answers={"look": "yes"}, assume_yes=True).result == "done"


def test_missing_program_and_missing_placeholder(bench: Bench) -> None:
    missing = bench.run(page("id: a\ntitle: A\nrun: [no-such-program-here]"))
    assert missing.error is not None and "program not found" in missing.error.what
    wrong = bench.run(page("id: a\ntitle: A\nrun:\n  argv: [echo, '${{ inputs.nope }}']"))
    assert wrong.error is not None and "nope" in wrong.error.what


def test_requires_lists_all_that_is_missing(bench: Bench) -> None:
    front = "id: demo\ntitle: T\nrequires: {stack: false, programs: [no-such-a, no-such-b]}\n"
    with pytest.raises(PreflightError, match=r"no-such-a.*no-such-b"):
        bench.run(page("id: a\ntitle: A\nrun: ['true']", front=front))


def test_a_plan_asks_what_only_looks_and_changes_nothing(bench: Bench) -> None:
    from stackctl.procedures.plan import plan

    bench.file("there").touch()
    looks = "id: {0}\ntitle: T\nrun: {{file.exists: {{path: {1}}}}}"
    procedure = page(
        looks.format("good", bench.file("there")),
        looks.format("bad", bench.file("gone")),
        touch(bench, "there"),
        f"id: program\ntitle: T\nrun: [touch, {bench.file('made')}]",
        "id: later\ntitle: T\ncheck: {file.exists: {path: '${{ steps.program.output }}'}}\nrun: ['true']",
        f"id: sometimes\ntitle: T\nwhen: steps.program.changed\nrun: [touch, {bench.file('made')}]",
    )
    planned = {step.id: (step.verdict, step.detail) for step in plan(procedure, {}, None, bench.runs)}
    assert planned["good"][0] == planned["there"][0] == "already so"
    assert planned["bad"] == ("would fail", f"{bench.file('gone')} does not exist")
    assert planned["program"][0] == "would run"
    assert planned["later"] == ("depends", "on what step program finds")
    assert planned["sometimes"][0] == "depends", "program has not run, and may change something"
    assert not bench.file("made").exists() and not bench.runs.exists()

"""Secret inputs are in nothing that a run writes or says: quoted, cut, in pieces, short, or as an answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from stackctl.errors import PreflightError
from stackctl.procedures import inputs, journal, use
from stackctl.procedures.inputs import InputsInvalid
from stackctl.procedures.plan import plan
from stackctl.redact import hiding
from tests.stackctl.procedures.support import Bench, page
from tests.stackctl.procedures.test_cli import stackctl

FRONT = "id: demo\ntitle: T\nrequires: {stack: false}\nlock: none\ninputs:\n  key: {secret: true}\n"
STOPS = FRONT + "  good: {default: 'no'}\non_failure: stop\n"
AWKWARD = 'it\'s-a-"hidden"-Wert'


def written(bench: Bench) -> str:
    return "".join(path.read_text() for path in bench.runs.rglob("journal.jsonl"))


@pytest.mark.parametrize("secret", [AWKWARD, "x7", "long " * 40])
def test_an_argument_that_is_quoted_or_cut_short(bench: Bench, secret: str) -> None:
    steps = (
        "id: one\ntitle: T\nrun:\n  argv: [echo, '--key=${{ inputs.key }}', '${{ inputs.key }}']",
        "id: two\ntitle: T\nrun: {command: 'echo ${{ inputs.key }} >&2', shell: true}",
        f"id: three\ntitle: T\nrun:\n  file.write:\n    path: {bench.file('out')}\n"
        "    text: before ${{ inputs.key }}",
        "id: four\ntitle: T\nrun:\n  argv: [sh, -c, 'echo \"$1\"; exit 3', '-', '${{ inputs.key }}']",
    )
    result = bench.run(page(*steps, front=FRONT), {"key": secret})
    assert result.error is not None and result.exit_code == 1
    told = "\n".join([*bench.said, result.error.what, *(step.detail for step in result.steps.values())])
    for part in (secret, secret.strip(), "hidden", "Wert", "x7", "long long"):
        assert part not in written(bench) + told or part not in secret
    assert bench.file("out").read_text() == f"before {secret}", "the step itself is given the very value"


def test_output_in_pieces_and_output_that_is_cut(bench: Bench) -> None:
    secret = "0123456789" * 20
    script = "printf 01234; sleep 0.1; printf %s ${KEY#01234}; echo; seq 2000; "
    script += "printf 'x%.0s' $(seq 3950); echo $KEY"
    step = (
        f"id: a\ntitle: A\nrun: {{command: \"{script}\", shell: true, env: {{KEY: '${{{{ inputs.key }}}}'}}}}"
    )
    result = bench.run(page(step, front=FRONT), {"key": secret})
    assert result.result == "done"
    assert "0123456789" not in written(bench) and "***" in written(bench)


def test_a_line_longer_than_all_that_is_kept(bench: Bench) -> None:
    zeros = bench.file("zeros")
    zeros.write_text("0" * 140000)
    script = f"cat {zeros}; printf ' password=hunter2'; head -c 65530 {zeros}"
    bench.run(page(f'id: a\ntitle: A\nrun: {{command: "{script}", shell: true}}'))
    assert "hunter2" not in written(bench)


def test_what_a_later_step_needs_comes_back_on_resume(bench: Bench) -> None:
    out = bench.file("out")
    procedure = page(
        "id: greet\ntitle: T\nrun:\n  argv: [echo, 'user:${{ inputs.key }}@host']",
        "id: ask\ntitle: T\nrun:\n  argv: [test, '${{ inputs.key }}', '!=', '${{ inputs.good }}', -a, -e, "
        f"{bench.file('go')}]",
        f"id: use\ntitle: T\nrun:\n  file.write:\n    path: {out}\n    text: ${{{{ steps.greet.output }}}}",
        front=STOPS,
    )
    first = use.start(procedure, {"key": AWKWARD}, None, bench.runs, bench.person())
    assert first.result == "stopped" and "hidden" not in written(bench)
    bench.file("go").touch()
    with pytest.raises(PreflightError, match="key is secret, and was not kept") as refused:
        use.go_on(procedure, {}, None, bench.runs, bench.person())
    assert refused.value.fix == "stackctl run demo --resume -i key=…"
    done = use.go_on(procedure, {"key": AWKWARD}, None, bench.runs, bench.person())
    assert done.result == "done" and out.read_text() == f"user:{AWKWARD}@host"
    assert "hidden" not in written(bench)


def test_output_that_nobody_asks_for_is_not_kept_twice(bench: Bench) -> None:
    result = bench.run(page("id: a\ntitle: A\nrun: [echo, 'password=hunter2']"))
    assert "hunter2" not in written(bench)
    assert result.steps["a"].data["output"] == "password=hunter2"


def test_a_question_does_not_show_it(bench: Bench) -> None:
    asked: list[str] = []

    def ask(question: str, _kind: str) -> str:
        asked.append(question)
        return "no"

    step = "id: a\ntitle: A\nconfirm: 'Use ${{ inputs.key }}?'\nrun: ['true']"
    result = bench.run(page(step, front=FRONT), {"key": AWKWARD}, ask=ask)
    assert asked == ["Use ***?"] and result.error is not None and "Wert" not in result.error.what


def test_a_plan_does_not_show_it(bench: Bench) -> None:
    step = "id: a\ntitle: A\nrun:\n  argv: [echo, '${{ inputs.key }}']"
    [found] = plan(page(step, front=FRONT), {"key": AWKWARD}, None, bench.runs)
    assert found.operations == ("echo '***'",)


def test_a_wrong_value_is_not_repeated() -> None:
    front = page(
        "id: a\ntitle: A\nrun: ['true']", front=FRONT.replace("secret: true", "secret: true, type: integer")
    ).front
    with pytest.raises(InputsInvalid) as wrong:
        inputs.resolve(front, {"key": "hunter2"})
    assert "hunter2" not in str(wrong.value.problems)


def test_each_item_of_a_list_is_secret() -> None:
    front = page(
        "id: a\ntitle: A\nrun: ['true']", front=FRONT.replace("secret: true", "secret: true, type: list")
    ).front
    assert inputs.secrets(front, inputs.resolve(front, {"key": "one,two"})) == ["one", "two"]


def test_the_terminal_and_the_files_of_the_state(tmp_path: Path) -> None:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "mine.md").write_text(
        f"---\n{FRONT.replace('demo', 'mine').replace('lock: none', 'lock: stack')}---\n"
        "```step\nid: a\ntitle: A\nrun:\n"
        "  argv: [sh, -c, 'echo \"$1\"; exit 3', '-', '${{ inputs.key }}']\n```\n"
    )
    (tmp_path / "stack.yaml").write_text("name: mine\nruntime: local\n")
    done: subprocess.CompletedProcess[str] = stackctl(
        tmp_path, "-v", "run", "mine", "-i", f"key={AWKWARD}", "--json"
    )
    assert done.returncode == 1 and json.loads(done.stdout)["steps"]["a"]["state"] == "failed"
    assert "Wert" not in done.stdout + done.stderr and "***" in done.stderr
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert any(path.name == "audit.jsonl" for path in files)
    assert not [path for path in files if "Wert" in path.read_text()]


def test_the_journal_stays_readable_beside_a_very_short_secret(bench: Bench) -> None:
    result = bench.run(page("id: a1\ntitle: A\nrun: ['true']", front=FRONT), {"key": "1"})
    with hiding(["1"]):
        assert journal.fold(result.run_dir).steps["a1"].state == "done"

"""Lint names each mistake by its rule and line; the shipped procedures have none."""

from pathlib import Path

import pytest

from stackctl.procedures import locate
from stackctl.procedures.document import ProcedureInvalid
from stackctl.procedures.lint import lint, lint_pages, unquoted
from stackctl.procedures.registry import action
from tests.stackctl.procedures.support import FRONT, page

ACTION = "id: a\ntitle: A\n"


@pytest.mark.parametrize(
    ("step", "rule", "told"),
    [
        (ACTION + "run: {file.exist: {path: /x}}", "unknown-action", "did you mean 'file.exists'"),
        (ACTION + "run: {file.exists: {pth: /x}}", "unknown-argument", "did you mean 'path'"),
        (ACTION + "run: file.exists", "missing-argument", "path: is required"),
        (ACTION + "run: {disk.free: {path: /, at_least: lots}}", "bad-argument", "not a size"),
        (ACTION + "check: {file.remove: {path: /x}}\nrun: [ls]", "changing-check", "cannot be a check"),
        (ACTION + "run: {command: 'rm $x', shell: true}", "unquoted-shell", "$x"),
        (ACTION + "run: {command: 'ls', shell: true}", "shell", "uses a shell"),
        (ACTION + "run: [sh, -c, 'echo hi']", "hidden-shell", "must say `shell: true`: echo hi"),
        (ACTION + "run: [/bin/bash, -euxc, 'ls $1']", "hidden-shell", "ls $1"),
        (ACTION + "run: [env, A=b, sudo, bash, -o, pipefail, -c, ls]", "hidden-shell", "ls"),
        (ACTION + "run: [docker, exec, web, sh, -c, 'ls; id']", "hidden-shell", "ls; id"),
        (ACTION + "run: [su, joe, -c, ls]", "hidden-shell", "ls"),
        (ACTION + "run: [ssh, -p, '22', far, 'ls; id']", "hidden-shell", "ls; id"),
        (ACTION + "run: {argv: [sh, -c, 'rm $x'], shell: true}", "unquoted-shell", "$x"),
        (ACTION + "run: {argv: [sh, -c, ls], shell: true}", "shell", "uses a shell"),
        (ACTION + "run: [cp, '$HOME/b', x]", "no-shell", "'$HOME/b' is given to cp as it is"),
        (ACTION + "run: [ls, '|', wc]", "no-shell", "no shell reads it"),
        (ACTION + "check: [rm, -f, /x]\nrun: [ls]", "changing-check", "rm -f /x"),
        (ACTION + "confirm: 'Go to ${{ inputs.nope }}?'\nrun: [ls]", "dangling-placeholder", "confirm: "),
        (ACTION + "manual: 'Go to ${{ steps.nope.x }}'", "dangling-placeholder", "manual: "),
        (ACTION + "run:\n  argv: [ls, '${{ inputs.nope }}']", "dangling-placeholder", "no such input"),
        (ACTION + "run:\n  argv: [ls, '${{ steps.later.x }}']", "dangling-placeholder", "no step 'later'"),
        (ACTION + "run: [ls]\nwhen: inputs.nope", "dangling-placeholder", "no such input"),
        (ACTION + "run: [ls]\nwhen: 'f()'", "bad-when", "only names, values"),
        (ACTION + "run: [ls]\nirreversible: true", "missing-undo", "no undo and asks for no confirm"),
        (ACTION + "verify: {file.exists: {path: /x}}\nundo: [ls]", "undo-of-nothing", "changes nothing"),
    ],
)
def test_each_mistake_has_a_rule(step: str, rule: str, told: str) -> None:
    found = [finding for finding in lint(page(step)) if finding.rule == rule]
    assert found and told in found[0].text
    assert found[0].line == 10


BEFORE = "id: before\ntitle: B\nrun: [touch, /x]\n"
LAST = "id: last\ntitle: L\nirreversible: true\nconfirm: Really?\nrun: [rm, /y]\n"


def test_what_comes_before_an_irreversible_step_needs_an_undo() -> None:
    [found] = [finding for finding in lint(page(BEFORE, LAST)) if finding.rule == "missing-undo"]
    assert found.line == 10 and "step before:" in found.text and "step last after it" in found.text
    looks = "id: look\ntitle: L\nrun: {file.exists: {path: /x}}\n"
    for steps in ((BEFORE + "undo: [rm, /x]\n", LAST), (looks, LAST), (LAST, BEFORE)):
        assert not lint(page(*steps))
    assert not lint(page(BEFORE, LAST, front=FRONT + "on_failure: stop\n")), "nothing is walked back there"


@pytest.mark.parametrize(
    "run",
    [
        "backup.prune", "models.forget: {before: []}", "secrets.forget", "upgrade.prune",
        "data.discard-replaced", "file.remove: {path: /x}", "[rm, -rf, /x]", "[sudo, -n, rm, /x]",
        "[/bin/shred, /x]", "[dd, of=/dev/x]", "[find, /x, -name, y, -delete]",
        "[find, /x, -exec, rm, '{}', ;]", "[docker, volume, rm, x]", "[docker, system, prune, -f]",
        "[docker, compose, -p, x, down, -v]", "[docker, exec, web, rm, /data/x]", "[docker, rmi, x]",
        "[podman, volume, prune]", "[stackctl, models, rm, x]", "[stackctl, down, --volumes]",
        "[ollama, rm, x]", "[rsync, -a, --delete, /a, /b]", "[git, reset, --hard]", "[mkfs.ext4, /dev/x]",
        "[restic, forget, --prune]", "{command: 'if true; then rm -rf \"/x\"; fi', shell: true}",
        "{command: 'cd /x && A=b sudo rm y', shell: true}", "{command: 'echo \"$(rm /x)\"', shell: true}",
        "{argv: [sh, -c, 'docker volume rm x'], shell: true}",
        "{argv: [ssh, far, 'rm -r /x'], shell: true}",
    ],
)  # fmt: skip
def test_what_cannot_be_taken_back_is_known(run: str) -> None:
    step = ACTION + f"run:\n  {run}\n"
    [found] = [finding for finding in lint(page(step)) if finding.rule == "missing-undo"]
    assert "cannot be taken back" in found.text
    rules = {finding.rule for finding in lint(page(BEFORE, step + "irreversible: true\nconfirm: Really?"))}
    assert "missing-undo" in rules, "nor what came before it"
    for way in ("undo: [ls]", "irreversible: true\nconfirm: Really?", "irreversible: nobody needs it"):
        assert not [one for one in lint(page(step + way)) if one.rule == "missing-undo"]


@pytest.mark.parametrize(
    "run",
    [
        "[docker, run, --rm, image]", "[docker, ps]", "[docker, compose, down]", "[grep, rm, /x]",
        "[git, pull]", "[rsync, -a, /a, /b]", "{command: 'echo rm', shell: true}",
        "[stackctl, models, pull, x]", "[ssh, far, ls]", "file.write: {path: /x, text: y}", "stack.down",
        "[echo, sh, -c, ls]", "[python3, -c, 'print(1)']",
    ],
)  # fmt: skip
def test_what_can_be_taken_back_is_let_be(run: str) -> None:
    rules = {finding.rule for finding in lint(page(ACTION + f"run:\n  {run}"))}
    assert not rules & {"missing-undo", "hidden-shell"}


def test_no_value_becomes_shell_code_by_way_of_an_argv() -> None:
    with pytest.raises(ProcedureInvalid) as refused:
        page(ACTION + "run: [sh, -c, 'echo ${{ inputs.x }}']")
    assert "inputs.x would become shell code" in refused.value.problems[0]
    with pytest.raises(ProcedureInvalid) as refused:
        page(ACTION + "run: {argv: [ls], shell: true}")
    assert "starts no shell: ls" in refused.value.problems[0]


def test_every_action_says_whether_it_can_be_taken_back() -> None:
    for wrong in ({}, {"reads_only": True, "irreversible": False}):
        with pytest.raises(TypeError, match="says `irreversible`"):
            action("file.test", **wrong)  # type: ignore[call-overload]


def test_links(tmp_path: Path) -> None:
    other = tmp_path / "other.md"
    other.write_text("# Some Heading\n")
    text = (
        f"---\n{FRONT}---\n# Why\n[good](other.md) [good](other.md#some-heading) [bad](gone.md)\n"
        "[bad](other.md#nope) [bad](#nowhere) [good](#why) [step](#one) "
        "[out](https://example.org) `[no](code.md)`\n"
        "```step\nid: one\ntitle: T\nrun: [ls]\n```\n"
    )
    target = tmp_path / "demo.md"
    target.write_text(text)
    found = lint(locate.find(str(target)))
    assert [(finding.rule, finding.line) for finding in found] == [
        ("dangling-link", 8),
        ("dangling-link", 9),
        ("dangling-link", 9),
    ]


def test_unused_input_and_wrong_name(tmp_path: Path) -> None:
    target = tmp_path / "misnamed.md"
    target.write_text(f"---\n{FRONT}inputs: {{x: {{}}}}\n---\n```step\nid: one\ntitle: T\nrun: [ls]\n```\n")
    rules = {finding.rule for _, finding in lint_pages([locate.page(str(target))])}
    assert rules == {"unused-input", "id-and-name"}


def test_a_page_that_cannot_be_read_is_an_error_with_a_line(tmp_path: Path) -> None:
    target = tmp_path / "x.md"
    target.write_text("---\nid: x\ntitle: X\n---\n```step\nid: one\n```\n")
    [*found] = lint_pages([locate.page(str(target))])
    assert {finding.rule for _, finding in found} == {"not-valid"} and found[0][1].line == 5


@pytest.mark.parametrize(
    ("command", "bad"),
    [
        ('rm "$x"', 0),
        ("rm '$x'", 0),
        ("rm $x", 1),
        ("rm \\$x", 0),
        ("rm $(cat x)", 1),
        ('rm "$(cat x)"', 0),
        ("rm `cat x`", 2),
        ("echo ${{ inputs.x }}", 0),
        ('echo "${{ inputs.x }}"', 1),
        ("test $? = 0", 0),
        ("rm $1", 1),
        ('rm "$1" $#', 0),
    ],
)
def test_unquoted(command: str, bad: int) -> None:
    assert len(unquoted(command)) == bad


def test_the_shipped_procedures_are_clean() -> None:
    pages = list(locate.find_all().values())
    assert not [(str(path), finding) for path, finding in lint_pages(pages)]

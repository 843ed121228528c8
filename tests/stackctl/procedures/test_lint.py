"""Lint names each mistake by its rule and line; the shipped procedures have none."""

from pathlib import Path

import pytest

from stackctl.procedures import locate
from stackctl.procedures.lint import lint, lint_pages, unquoted
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
    ],
)
def test_unquoted(command: str, bad: int) -> None:
    assert len(unquoted(command)) == bad


def test_the_shipped_procedures_are_clean() -> None:
    pages = list(locate.find_all().values())
    assert not [(str(path), finding) for path, finding in lint_pages(pages)]

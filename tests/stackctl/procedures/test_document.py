"""Reading pages: what is accepted, and that every problem of a bad one is told at once, with its line."""

import pytest

from stackctl.procedures.document import ProcedureInvalid, Prose, parse
from stackctl.procedures.model import Action, Argv, Shell
from tests.stackctl.procedures.support import page


def test_prose_and_steps_keep_their_order() -> None:
    text = (
        "---\nid: x\ntitle: X\n---\n# Why\n\nBecause.\n\n```step\nid: a\ntitle: A\nrun: [true]\n```\n"
        "\nNormal is 1 s.\n\n```sh\nnot a step\n```\n\n~~~step\nid: b\ntitle: B\nrun: [a, 1]\n~~~\n"
    )
    with pytest.raises(ProcedureInvalid) as caught:
        parse(text)
    assert "quote it" in caught.value.problems[0], "a bare `true` in an argv is a YAML boolean, not a program"
    procedure = parse(text.replace("[true]", "['true']"))
    kinds = [type(part).__name__ for part in procedure.parts]
    assert kinds == ["Prose", "Step", "Prose", "Step"]
    assert [step.spec.id for step in procedure.steps] == ["a", "b"]
    assert procedure.steps[1].spec.run == (Argv(argv=("a", "1")),)
    first = procedure.parts[2]
    assert isinstance(first, Prose) and "not a step" in first.text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("run: file.exists", Action(name="file.exists")),
        ("run: {file.exists: {path: /x}}", Action(name="file.exists", args={"path": "/x"})),
        ("run: [ls, -l]", Argv(argv=("ls", "-l"))),
        ("run: {argv: [ls], env: {A: b}}", Argv(argv=("ls",), env={"A": "b"})),
        ("run: {command: 'ls | wc', shell: true}", Shell(command="ls | wc")),
    ],
)
def test_forms_of_an_operation(written: str, meant: object) -> None:
    assert page(f"id: a\ntitle: A\n{written}").steps[0].spec.run == (meant,)


def test_a_list_of_mappings_is_several_operations() -> None:
    step = page("id: a\ntitle: A\nrun:\n- {file.exists: {path: /x}}\n- {argv: [ls]}").steps[0]
    assert len(step.spec.run) == 2


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("id: a\ntitle: A\nrun: 'ls | wc'", "shell string is written as"),
        ("id: a\ntitle: A\nrun: {command: ls}", "must say `shell: true`"),
        ("id: a\ntitle: A", "needs `run`, `verify` or `manual`"),
        ("id: A B\ntitle: A\nrun: [ls]", "lower-case"),
        ("id: a\nrun: [ls]", "title: is required"),
        ("id: a\ntitle: A\nrun: [ls]\ntimout: 3s", "did you mean 'timeout'"),
        ("id: a\ntitle: A\nrun: [ls]\ntimeout: soon", "not a duration"),
        ("id: a\ntitle: A\nrun: [ls]\nmanual: do it", "cannot also have `run`"),
        ("id: a\ntitle: A\nrun: [ls]\nretries: -1", "retries"),
        ("id: a\ntitle: [\nrun: [ls]", "not valid YAML"),
        ("- a\n- b", "expected keys and values"),
    ],
)
def test_a_bad_step_is_refused_with_its_line(step: str, told: str) -> None:
    with pytest.raises(ProcedureInvalid) as caught:
        page(step)
    assert told in "\n".join(caught.value.problems)
    assert caught.value.problems[0].startswith("line ")


def test_all_problems_at_once() -> None:
    with pytest.raises(ProcedureInvalid) as caught:
        page("id: a\ntitle: A\nrun: 'x y'", "id: b\nrun: [ls]", front="id: demo\ntitle: T\nlok: none\n")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "front matter"),
        ("# Title\n", "front matter"),
        ("---\nid: x\ntitle: X\n", "not closed"),
        ("---\nid: x\ntitle: X\n---\nOnly prose.\n", "no ```step block"),
        ("---\nid: x\ntitle: X\n---\n```step\nid: a\ntitle: A\nrun: [ls]\n", "not closed"),
    ],
)
def test_bad_pages(text: str, told: str) -> None:
    with pytest.raises(ProcedureInvalid) as caught:
        parse(text)
    assert told in "\n".join(caught.value.problems)


def test_step_ids_are_unique() -> None:
    with pytest.raises(ProcedureInvalid, match="not a valid"):
        page("id: a\ntitle: A\nrun: [ls]", "id: a\ntitle: A\nrun: [ls]")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("{type: integer, default: three}", "inputs.n.default: 'three' is not a whole number"),
        ("{choices: [a, b], default: c}", "inputs.n.default: 'c' is not one of a, b"),
        ("{pattern: '[0-9]+', default: x}", "inputs.n.default: 'x' does not match"),
        ("{type: duration, default: soon}", "inputs.n.default: 'soon' is not a duration"),
    ],
)
def test_a_default_is_held_to_what_a_value_is_held_to(spec: str, told: str) -> None:
    with pytest.raises(ProcedureInvalid) as refused:
        page("id: a\ntitle: A\nrun: [ls]", front=f"id: demo\ntitle: T\ninputs:\n  n: {spec}\n")
    assert told in refused.value.problems[0]

"""Finds what is wrong with a procedure before anybody runs it.

Errors make `lint` fail: unknown action or argument, dangling link or placeholder, an irreversible step
without undo or confirmation, a check that changes something, unquoted shell, a shell that is not said to be
one. Warnings are shown: every use of a shell. What an action destroys its registration says; what a program
destroys is known by name (`commands`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stackctl.errors import StackctlError
from stackctl.procedures import commands, expressions, links, registry
from stackctl.procedures.document import Procedure, Step
from stackctl.procedures.locate import Found
from stackctl.procedures.model import Action, Argv, Operation, Shell
from stackctl.procedures.suggest import did_you_mean

_STEP_FACTS = ("state", "changed", "answer", "output", "exit")
_MEANT_FOR_A_SHELL = re.compile(r"(\|\|?|&&?|\d?>>?|<<?|~(/.*)?|\$\{?[A-Za-z_]\w*\}?(/.*)?)$")
PHASES = ("check", "run", "verify", "undo")


@dataclass(frozen=True)
class Finding:
    severity: Literal["error", "warning"]
    line: int
    rule: str
    text: str


def lint(procedure: Procedure) -> list[Finding]:
    found = [*_links(procedure), *_steps(procedure), *_inputs_used(procedure)]
    return sorted(found, key=lambda finding: (finding.line, finding.rule))


def lint_pages(pages: Iterable[Found]) -> list[tuple[Path, Finding]]:
    """Findings over many pages; a page that cannot even be read is an error of its own."""
    found: list[tuple[Path, Finding]] = []
    for page in pages:
        if page.procedure is None:
            problems = page.problem.problems if page.problem else []
            found += [(page.path, Finding("error", _line_of(text), "not-valid", text)) for text in problems]
            continue
        found += [(page.path, finding) for finding in lint(page.procedure)]
        if page.procedure.id != page.path.stem:
            text = f"its id is {page.procedure.id!r}, and the file is called {page.path.name}"
            found.append((page.path, Finding("error", 2, "id-and-name", text)))
    return found


def _line_of(problem: str) -> int:
    match = re.match(r"line (\d+)", problem)
    return int(match[1]) if match else 1


def _links(procedure: Procedure) -> Iterator[Finding]:
    for line, problem in links.dangling(procedure):
        yield Finding("error", line, "dangling-link", problem)


def _steps(procedure: Procedure) -> Iterator[Finding]:
    before: list[Step] = []
    for step in procedure.steps:
        spec = step.spec
        for phase in PHASES:
            for operation in getattr(spec, phase):
                for severity, rule, text in _operation(procedure, step, phase, operation, before):
                    yield Finding(severity, step.line, rule, f"step {spec.id}: {phase}: {text}")
        for place, asked in (("confirm", spec.confirm), ("manual", spec.manual and spec.manual.ask)):
            for path in expressions.references(asked):
                if problem := _reference(procedure, path, before):
                    text = f"step {spec.id}: {place}: {problem}"
                    yield Finding("error", step.line, "dangling-placeholder", text)
        if spec.when is not None:
            yield from _when(procedure, step, before)
        yield from _irreversible(step)
        yield from _no_way_back(procedure, step, before)
        if spec.verify and not spec.run and spec.undo:
            yield Finding(
                "error", step.line, "undo-of-nothing", f"step {spec.id}: it changes nothing, yet has an undo"
            )
        before.append(step)


_Problem = tuple[Literal["error", "warning"], str, str]


def _operation(
    procedure: Procedure, step: Step, phase: str, operation: Operation, before: list[Step]
) -> Iterator[_Problem]:
    seen = [*before, step] if phase in ("verify", "undo") else before
    if isinstance(operation, Action):
        values: Any = operation.args
    elif isinstance(operation, Argv):
        values = [*operation.argv, operation.env]
        text = commands.shell_text(operation.argv)
        if text is not None and not operation.shell:
            yield "error", "hidden-shell", f"it is shell, and must say `shell: true`: {text}"
        elif text is not None:
            yield from _shell(text)
        for word in operation.argv:
            if _MEANT_FOR_A_SHELL.match(word):
                yield (
                    "warning",
                    "no-shell",
                    f"{word!r} is given to {operation.argv[0]} as it is: no shell reads it",
                )
    else:
        values = [operation.command, operation.env]
        yield from _shell(operation.command)
    if phase in ("check", "verify") and (found := _destroys(operation)):
        yield "error", "changing-check", f"{found} changes something and cannot be a {phase}"
    for path in expressions.references(values):
        dangling = _reference(procedure, path, seen)
        if dangling:
            yield "error", "dangling-placeholder", dangling
    if isinstance(operation, Action):
        yield from _action(phase, operation)


def _shell(text: str) -> Iterator[_Problem]:
    yield "warning", "shell", f"uses a shell: {text}"
    for problem in unquoted(text):
        yield "error", "unquoted-shell", problem


def _destroys(operation: Operation) -> str | None:
    """What an outside program destroys, as far as that is known."""
    if isinstance(operation, Argv):
        return commands.destroys(operation.argv)
    return commands.destroys_in_shell(operation.command) if isinstance(operation, Shell) else None


def _action(phase: str, operation: Action) -> Iterator[_Problem]:
    known = registry.all_actions()
    registered = known.get(operation.name)
    if registered is None:
        yield (
            "error",
            "unknown-action",
            f"{operation.name}: no such action{did_you_mean(operation.name, known)}",
        )
        return
    if phase in ("check", "verify") and not registered.reads_only:
        yield "error", "changing-check", f"{operation.name} changes something and cannot be a {phase}"
    fields = registered.args.model_fields
    for name in operation.args:
        if name not in fields:
            yield (
                "error",
                "unknown-argument",
                f"{operation.name}: {name}: unknown argument{did_you_mean(name, fields)}",
            )
    for name, info in fields.items():
        if info.is_required() and name not in operation.args:
            yield "error", "missing-argument", f"{operation.name}: {name}: is required"
    # A literal can be judged now; what holds a placeholder is judged when it is filled.
    if not expressions.references(operation.args) and set(operation.args) <= set(fields):
        try:
            registry.bind(registered, operation.args)
        except registry.ActionInvalid as error:
            for problem in error.problems:
                if "Field required" not in problem:
                    yield "error", "bad-argument", problem


def _reference(procedure: Procedure, path: str, before: list[Step]) -> str | None:
    head, _, rest = path.partition(".")
    name, _, key = rest.partition(".")
    if head == "inputs":
        inputs = procedure.front.inputs
        return (
            None
            if name in inputs
            else f"${{{{ {path} }}}}: there is no such input{did_you_mean(name, inputs)}"
        )
    if head == "steps":
        steps = {step.spec.id: step for step in before}
        if name not in steps:
            return f"${{{{ {path} }}}}: no step {name!r} comes before{did_you_mean(name, steps)}"
        given = _gives(steps[name])
        if given is not None and key not in given:
            return f"${{{{ {path} }}}}: step {name} does not give {key!r}{did_you_mean(key, given)}"
        return None
    return None if head == "stack" and name else f"${{{{ {path} }}}}: expected inputs., steps. or stack."


def _gives(step: Step) -> set[str] | None:
    """What a step leaves behind; None when that cannot be told."""
    given = set(_STEP_FACTS)
    for phase in ("check", "run", "verify"):
        for operation in getattr(step.spec, phase):
            if isinstance(operation, Action):
                registered = registry.all_actions().get(operation.name)
                if registered is None:
                    return None
                given.update(registered.gives)
    return given


def _when(procedure: Procedure, step: Step, before: list[Step]) -> Iterator[Finding]:
    assert step.spec.when is not None
    try:
        paths = expressions.when_references(step.spec.when)
    except StackctlError as error:
        yield Finding("error", step.line, "bad-when", f"step {step.spec.id}: {error.what}")
        return
    for path in paths:
        problem = _reference(procedure, path, before)
        if problem:
            yield Finding("error", step.line, "dangling-placeholder", f"step {step.spec.id}: when: {problem}")


def _irreversible(step: Step) -> Iterator[Finding]:
    spec = step.spec
    named = _irreversible_actions(step)
    if named and not spec.undo and not spec.irreversible:
        yield Finding(
            "error",
            step.line,
            "missing-undo",
            f"step {spec.id}: {', '.join(named)} cannot be taken back: "
            "write an undo, or irreversible: true and a confirm, or irreversible: and why nobody is asked",
        )
    if spec.irreversible is True and not spec.undo and not spec.confirm:
        yield Finding(
            "error",
            step.line,
            "missing-undo",
            f"step {spec.id}: it is irreversible, has no undo and asks for no confirm",
        )


def _no_way_back(procedure: Procedure, step: Step, before: list[Step]) -> Iterator[Finding]:
    """When an irreversible step fails, what was changed before it is walked back: each needs its undo."""
    if procedure.front.on_failure != "undo" or not (step.spec.irreversible or _irreversible_actions(step)):
        return
    for earlier in before:
        if earlier.spec.run and not earlier.spec.undo and not _only_looks(earlier):
            yield Finding(
                "error",
                earlier.line,
                "missing-undo",
                f"step {earlier.spec.id}: it changes something, has no undo, and step {step.spec.id} after "
                "it cannot be taken back: write an undo, or on_failure: stop",
            )


def _only_looks(step: Step) -> bool:
    known = registry.all_actions()
    return all(
        isinstance(one, Action) and one.name in known and known[one.name].reads_only for one in step.spec.run
    )


def _irreversible_actions(step: Step) -> list[str]:
    known = registry.all_actions()
    found = []
    for one in step.spec.run:
        if isinstance(one, Action):
            found += [one.name] if one.name in known and known[one.name].irreversible else []
        elif text := _destroys(one):
            found.append(text)
    return found


def _inputs_used(procedure: Procedure) -> Iterator[Finding]:
    used = set(re.findall(r"\binputs\.([a-z][a-z0-9_]*)", procedure.text))
    for name in procedure.front.inputs:
        if name not in used:
            yield Finding("error", 1, "unused-input", f"input {name}: nothing reads it")


def unquoted(command: str) -> list[str]:
    """Expansions that the shell would split: `$x` and `$(…)` outside quotes, a placeholder inside them."""
    problems = []
    plain = expressions.PLACEHOLDER.sub(lambda match: "\0" * len(match[0]), command)
    quote = ""
    position = 0
    while position < len(plain):
        char = plain[position]
        if char == "\\" and quote != "'":
            position += 2
            continue
        if char in "'\"":
            quote = "" if quote == char else (quote or char)
        elif char == "\0":
            if quote:
                problems.append("a placeholder inside quotes is quoted twice: take the quotes away")
            while position + 1 < len(plain) and plain[position + 1] == "\0":
                position += 1
        elif quote == "" and (char == "`" or re.match(r"\$[A-Za-z0-9_({@*]", plain[position:])):
            word = re.match(r"\$\w+|\S+", plain[position:])
            problems.append(
                f"unquoted {word[0] if word else char}: the shell splits its value; write it in double quotes"
            )
        position += 1
    return problems

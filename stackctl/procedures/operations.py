"""Carries out one operation of a step (an action, an argv, a shell line) and writes what it did to the
journal. What is shown of it is redacted before it is quoted or cut.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping
from typing import Any

from stackctl.procedures import programs, registry
from stackctl.procedures.context import Context
from stackctl.procedures.expressions import fill, fill_shell
from stackctl.procedures.journal import Journal, JournalLost
from stackctl.procedures.model import Action, Argv, Operation, Operations, Shell
from stackctl.procedures.registry import Outcome
from stackctl.redact import redacted, redacted_values

Scope = Mapping[str, Any]


def describe(operation: Operation, scope: Scope | None = None) -> str:
    """The operation on one line, as a person would type it; placeholders are filled when a scope is given."""
    if isinstance(operation, Action):
        args = fill(operation.args, scope) if scope is not None else operation.args
        return " ".join([operation.name, *(f"{name}={_short(value)}" for name, value in args.items())])
    if isinstance(operation, Argv):
        argv = fill(list(operation.argv), scope) if scope is not None else list(operation.argv)
        return shlex.join(redacted(str(item)) for item in argv)
    line = operation.command if scope is None else fill_shell(operation.command, redacted_values(scope))
    return "sh -c " + redacted(line)


def _short(value: Any) -> str:
    text = str(redacted_values(value))
    return text if len(text) <= 80 else text[:77] + "..."


def is_read_only(operation: Operation) -> bool:
    """A program is taken at its author's word: as a `check` it must not change anything."""
    return not isinstance(operation, Action) or registry.find(operation.name).reads_only


def perform(
    operation: Operation, context: Context, scope: Scope, journal: Journal | None, step: str, phase: str
) -> Outcome:
    began = time.monotonic()
    fields: dict[str, Any] = {}

    def note(outcome: Outcome) -> None:
        if journal is not None:
            journal.append(
                "operation",
                step=step,
                phase=phase,
                what=describe(operation, scope),
                ok=outcome.ok,
                detail=outcome.detail,
                duration=round(time.monotonic() - began, 3),
                **fields,
            )

    try:
        if isinstance(operation, Action):
            registered = registry.find(operation.name)
            outcome = registered.function(context, registry.bind(registered, fill(operation.args, scope)))
        else:
            outcome = _run_program(operation, scope, fields)
    except BaseException as error:
        why = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else "interrupted"
        with contextlib.suppress(JournalLost):  # what ended the operation is the better reason
            note(Outcome(False, why))
        raise
    with contextlib.nullcontext() if outcome.ok else contextlib.suppress(JournalLost):
        note(outcome)
    return outcome


def _run_program(operation: Argv | Shell, scope: Scope, fields: dict[str, Any]) -> Outcome:
    env = {name: str(fill(value, scope)) for name, value in operation.env.items()}
    if isinstance(operation, Shell):
        argv = [fill_shell(operation.command, scope)]
    else:
        argv = [str(fill(item, scope)) for item in operation.argv]
    finished = programs.run(argv, env=env, shell=isinstance(operation, Shell))
    fields.update(argv=argv, exit=finished.returncode, output=finished.shown)
    last = finished.shown.strip().splitlines()[-1:] or [""]
    detail = last[0] if finished.returncode == 0 else f"exit {finished.returncode}: {last[0]}".rstrip(": ")
    return Outcome(
        finished.returncode == 0, detail, {"output": finished.whole.strip(), "exit": finished.returncode}
    )


def all_hold(
    operations: Operations, context: Context, scope: Scope, journal: Journal | None, step: str, phase: str
) -> Outcome:
    """Every operation in turn until one does not hold; what they found is merged."""
    data: dict[str, Any] = {}
    details = []
    for operation in operations:
        outcome = perform(operation, context, scope, journal, step, phase)
        data.update(outcome.data)
        if not outcome.ok:
            return Outcome(False, outcome.detail or describe(operation, scope), data)
        if outcome.detail:
            details.append(outcome.detail)
    return Outcome(True, "; ".join(details), data)

"""What a run would do, found by asking every check and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stackctl.errors import ConfigError, StackctlError
from stackctl.procedures import inputs
from stackctl.procedures.context import Context
from stackctl.procedures.document import Procedure, Step
from stackctl.procedures.expressions import ExpressionError, lookup, references
from stackctl.procedures.host import Host
from stackctl.procedures.model import Action, Operation, Operations, StepSpec
from stackctl.procedures.operations import describe, is_read_only
from stackctl.procedures.stepper import Stepper
from stackctl.redact import hiding, redacted

Verdict = Literal["already so", "would run", "would fail", "not needed", "would ask", "depends"]


@dataclass(frozen=True)
class Planned:
    id: str
    title: str
    verdict: Verdict
    detail: str
    operations: tuple[str, ...]


def plan(procedure: Procedure, values: Mapping[str, Any], host: Host | None, run_dir: Path) -> list[Planned]:
    with hiding(inputs.secrets(procedure.front, values)):
        return _plan(procedure, values, host, run_dir)


def _plan(procedure: Procedure, values: Mapping[str, Any], host: Host | None, run_dir: Path) -> list[Planned]:
    facts: dict[str, dict[str, Any]] = {
        step.spec.id: {"state": "pending", "changed": False} for step in procedure.steps
    }
    scope: dict[str, Any] = {"inputs": dict(values), "steps": facts}
    if host is not None:
        scope["stack"] = host.facts()
    context = Context(run_dir=run_dir, say=lambda _text: None, inputs=values, host=host)
    stepper = Stepper(context, lambda: scope, None, lambda: float("inf"))
    found = []
    for step in procedure.steps:
        found.append(_one(step, stepper, scope, facts))
        if found[-1].verdict in ("would run", "would ask", "depends"):
            facts[step.spec.id].clear()  # nobody knows what it will leave
    return found


def _one(step: Step, stepper: Stepper, scope: Mapping[str, Any], facts: dict[str, dict[str, Any]]) -> Planned:
    spec = step.spec

    def planned(verdict: Verdict, detail: str = "") -> Planned:
        operations = spec.run or spec.verify
        shown = tuple(_describe(op, scope) for op in operations)
        return Planned(spec.id, spec.title, verdict, redacted(detail), shown)

    try:
        if not stepper.wanted(step):
            return planned("not needed", f"when: {spec.when}")
    except ExpressionError:
        return planned("depends", f"on {spec.when}, known during the run")
    if spec.manual is not None:
        return planned("would ask", spec.manual.ask)
    asked = _askable(spec)
    if asked is None:
        return planned("would run", f"asks: {spec.confirm}" if spec.confirm else "")
    if unknown := _unknown(getattr(spec, asked), scope):
        return planned("depends", f"on what step {unknown} finds")
    try:
        found = stepper.ask(step, asked)
    except StackctlError as error:
        return planned("would run" if spec.check else "would fail", error.what)
    if found.ok:
        facts[spec.id].update(found.data)
        facts[spec.id]["state"] = "skipped"
        return planned("already so", found.detail)
    return planned("would run" if spec.check else "would fail", found.detail)


def _askable(spec: StepSpec) -> Literal["check", "run"] | None:
    """What of a step can be asked now: its check; or its `run`, when that is actions that only look."""
    if spec.check:
        return "check" if all(is_read_only(one) for one in spec.check) else None
    looks = all(isinstance(one, Action) and is_read_only(one) for one in spec.run)
    return "run" if spec.run and looks else None


def _unknown(operations: Operations, scope: Mapping[str, Any]) -> str | None:
    """The step whose outcome an operation needs before it can be asked."""
    for operation in operations:
        for path in references(operation.model_dump()):
            try:
                lookup(path, scope)
            except ExpressionError:
                return path.split(".")[1]
    return None


def _describe(operation: Operation, scope: Mapping[str, Any]) -> str:
    try:
        return describe(operation, scope)
    except ConfigError:
        return describe(operation)

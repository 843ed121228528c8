"""May a run that did not end be gone on with? Not by two at once, and only as what it began as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from stackctl.errors import PreflightError
from stackctl.procedures import inputs
from stackctl.procedures.document import Procedure
from stackctl.procedures.journal import RunRecord


class ResumeRefused(PreflightError):
    """The run cannot be continued as it is."""


def refuse_to_go_on(
    procedure: Procedure,
    values: Mapping[str, Any],
    record: RunRecord,
    how: Literal["--resume", "--undo"],
    accept_changes: bool,
) -> None:
    front = procedure.front
    if record.alive:
        raise ResumeRefused(
            f"run {record.id} is still at work: process {record.pid}",
            fix=f"stackctl procedures journal {record.id}",
        )
    if accept_changes:
        return
    missing = [
        name for name, value in record.inputs.items()
        if inputs.REDACTED in str(value)
        and name in front.inputs
        and values.get(name) in (None, front.inputs[name].default)
    ]  # fmt: skip
    if missing:
        again = " ".join(f"-i {name}=…" for name in missing)
        raise ResumeRefused(
            f"run {record.id} cannot go on: {', '.join(missing)} is secret, and was not kept",
            fix=f"stackctl run {front.id} {how} {again}",
        )
    changed = []
    if procedure.sha256 != record.sha256:
        changed.append(f"{front.id} was edited since the run began")
    if inputs.fingerprint(values, record.salt) != record.inputs_fingerprint:
        changed.append("the inputs are not those the run began with")
    if changed:
        raise ResumeRefused(
            f"run {record.id} cannot {'be resumed' if how == '--resume' else 'be undone'}: "
            f"{' and '.join(changed)}",
            fix=f"stackctl run {front.id} {how} --accept-changes",
        )

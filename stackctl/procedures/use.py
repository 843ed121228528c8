"""The use-cases of `stackctl run`: start a procedure, go on with one that did not end, find a run by its
id.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackctl.errors import PreflightError, UsageError
from stackctl.procedures import inputs, journal
from stackctl.procedures.document import Procedure
from stackctl.procedures.engine import Engine, Person, RunResult
from stackctl.procedures.host import Host
from stackctl.procedures.journal import RunRecord
from stackctl.procedures.suggest import did_you_mean


def start(
    procedure: Procedure, given: Mapping[str, Any], host: Host | None, runs: Path, person: Person
) -> RunResult:
    values = inputs.resolve(procedure.front, given)
    waiting = unfinished(runs, procedure.id)
    if waiting is not None and not waiting.alive:
        person.say(
            f"note: run {waiting.id} of {procedure.id} did not end; this is a new one "
            f"(stackctl run {procedure.id} --resume would have gone on with it)"
        )
    journal.prune(runs)
    return Engine(procedure, values, host, runs, person).start()


def go_on(
    procedure: Procedure,
    given: Mapping[str, Any],
    host: Host | None,
    runs: Path,
    person: Person,
    *,
    undo: bool = False,
    accept_changes: bool = False,
) -> RunResult:
    """Inputs that are not given again are those the run began with; secret ones must be given again."""
    record = unfinished(runs, procedure.id)
    if record is None:
        raise PreflightError(f"no run of {procedure.id} is unfinished", fix="stackctl procedures history")
    kept = {
        name: value
        for name, value in record.inputs.items()
        if value is not None and value != inputs.REDACTED and name in procedure.front.inputs
    }
    values = inputs.resolve(procedure.front, {**kept, **given})
    engine = Engine(procedure, values, host, runs, person)
    return engine.undo(record) if undo else engine.resume(record, accept_changes=accept_changes)


def unfinished(runs: Path, procedure_id: str) -> RunRecord | None:
    """The newest run of the procedure, when it can be gone on with."""
    records = [record for record in journal.history(runs) if record.procedure == procedure_id]
    return records[-1] if records and records[-1].resumable else None


def find_run(runs: Path, run_id: str | None) -> RunRecord:
    records = journal.history(runs)
    if not records:
        raise UsageError("nothing was run here yet", fix="stackctl procedures list")
    if run_id is None:
        return records[-1]
    for record in records:
        if record.id == run_id:
            return record
    known = [record.id for record in records]
    raise UsageError(
        f"there is no run {run_id!r}{did_you_mean(run_id, known)}", fix="stackctl procedures history"
    )

"""The use-cases of `stackctl run`: start a procedure, go on with one that did not end, find a run by its
id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stackctl import paths
from stackctl.errors import PreflightError, StackctlError, UsageError
from stackctl.operations import underway
from stackctl.operations.context import Stack
from stackctl.procedures import inputs, journal, locate
from stackctl.procedures.document import Procedure
from stackctl.procedures.engine import Engine, RunResult
from stackctl.procedures.host import Host
from stackctl.procedures.journal import RunRecord
from stackctl.procedures.overtaken import refuse_when_overtaken
from stackctl.procedures.people import Person
from stackctl.procedures.stack_host import StackHost
from stackctl.procedures.suggest import did_you_mean
from stackctl.redact import hiding
from stackctl.runtime import audit


def start(
    procedure: Procedure,
    given: Mapping[str, Any],
    host: Host | None,
    runs: Path,
    person: Person,
    *,
    tell_of_unfinished: bool = True,
) -> RunResult:
    values = inputs.resolve(procedure.front, given)
    waiting = unfinished(runs, procedure.id) if tell_of_unfinished else None
    if waiting is not None and not waiting.alive:
        how = "could not be undone completely" if waiting.result == "undo-failed" else "did not end"
        person.say(
            f"note: run {waiting.id} of {procedure.id} {how}; this is a new one "
            f"(stackctl run {procedure.id} --resume would have gone on with it)"
        )
    journal.prune(runs)
    engine = Engine(procedure, values, host, runs, person)
    with hiding(inputs.secrets(procedure.front, values)):
        return _recorded(procedure, host, engine.start)


def bring_up(
    stack: Stack, person: Person, *, within: float | None = None, lock_wait: float = 0.0
) -> RunResult:
    """What `stackctl up` does: the page bring-up, begun anew however the last run of it ended."""
    host = StackHost(stack, lock_wait)
    given = {} if within is None else {"within": f"{within}s"}
    page = locate.find("bring-up", host.folder)
    return start(page, given, host, runs_of(host), person, tell_of_unfinished=False)


def runs_of(host: Host | None) -> Path:
    return (host.state_dir if host is not None else paths.state_root() / "no-stack") / "runs"


def _recorded(procedure: Procedure, host: Host | None, run: Callable[[], RunResult]) -> RunResult:
    """With a line in the stack's audit log, unless the run only looked."""
    if host is None:
        return run()
    began, before = time.monotonic(), host.handle.store.current()
    result = run()
    after = host.handle.store.current()
    meant = [step.data["generation"] for step in result.steps.values() if "generation" in step.data]
    if result.result != "done" or any(step.changed for step in result.steps.values()):
        audit.record(
            host.name,
            procedure.id,
            result=_ending(result),
            duration=time.monotonic() - began,
            generation_from=before.number if before else None,
            generation_to=meant[-1] if meant else after.number if after else None,
            run=result.run_id,
        )
    return result


def _ending(result: RunResult) -> str:
    if result.error is None:
        return "ok" if result.result == "done" else result.result
    cause = result.error.__cause__
    kind = cause if isinstance(cause, StackctlError) else result.error
    return f"{type(kind).__name__}: {result.error.what}"


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
    record = _open_run(procedure, host, runs) or unfinished(runs, procedure.id)
    if record is None:
        raise PreflightError(f"no run of {procedure.id} is unfinished", fix="stackctl procedures history")
    refuse_when_overtaken(record, runs, host)
    kept = {
        name: value
        for name, value in record.inputs.items()
        if value is not None and inputs.REDACTED not in str(value) and name in procedure.front.inputs
    }
    values = inputs.resolve(procedure.front, {**kept, **given})
    engine = Engine(procedure, values, host, runs, person)
    go = engine.undo if undo else engine.resume
    with hiding(inputs.secrets(procedure.front, values)):
        return _recorded(procedure, host, lambda: go(record, accept_changes=accept_changes))


def _open_run(procedure: Procedure, host: Host | None, runs: Path) -> RunRecord | None:
    """The run whose change of version is under way, also when a later run of the page was refused."""
    change = underway.read(host.handle) if host is not None else None
    if change is None or change.procedure != procedure.id or not (runs / change.run).is_dir():
        return None
    return journal.fold(runs / change.run)


def unfinished(runs: Path, procedure_id: str) -> RunRecord | None:
    """The newest run of the procedure, when it can be gone on with."""
    record = journal.newest(runs, procedure_id)
    return record if record is not None and record.resumable else None


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

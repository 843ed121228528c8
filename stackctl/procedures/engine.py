"""Runs a procedure: steps in order, every transition journalled, undo walked backwards when one fails.

Guarantees, each with a test: a step whose check holds is skipped; a crash at any point leaves a journal
from which `resume` goes on; an undo that fails never stops the walk, and ends in exit 5 with what is left to
do by hand, after which `resume` tries that again; secret inputs are in nothing that is told or written.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stackctl.config.durations import format_duration
from stackctl.errors import PreflightError, RollbackError, StackctlError, UnhealthyError
from stackctl.operations import underway
from stackctl.procedures import inputs, registry
from stackctl.procedures.context import Context
from stackctl.procedures.document import Procedure, Step
from stackctl.procedures.expressions import references
from stackctl.procedures.host import Host
from stackctl.procedures.journal import (
    Journal,
    RunRecord,
    StepRecord,
    boot_id,
    new_run_dir,
)  # fmt: skip
from stackctl.procedures.limits import StopNow, StopSignals
from stackctl.procedures.model import Action
from stackctl.procedures.people import Asking, NobodyToAsk, Person, whoever_listens
from stackctl.procedures.requirements import refuse_unless_met
from stackctl.procedures.resuming import refuse_to_go_on
from stackctl.procedures.stepper import Stepper
from stackctl.procedures.walk import Walk
from stackctl.procedures.withheld import Withheld
from stackctl.redact import hiding, redacted
from stackctl.runtime.local import usage

Result = Literal["done", "failed", "undone", "undo-failed", "interrupted", "stopped"]


@dataclass(frozen=True)
class RunResult:
    run_id: str
    run_dir: Path
    result: Result
    exit_code: int
    error: StackctlError | None = None
    left_by_hand: tuple[str, ...] = ()
    steps: Mapping[str, StepRecord] = field(default_factory=dict)
    undone: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()


class Engine:
    def __init__(
        self, procedure: Procedure, values: Mapping[str, Any], host: Host | None, runs: Path, person: Person
    ) -> None:
        self._procedure = procedure
        self._values = dict(values)
        self._host = host
        self._runs = runs
        self._person = replace(person, say=whoever_listens(person.say))
        self._records: dict[str, StepRecord] = {}
        self._again = False
        self._secrets = inputs.secrets(procedure.front, values)
        self._withheld = Withheld(procedure.front, values)
        self._outputs_wanted = {
            path.split(".")[1]
            for step in procedure.steps
            for path in references(step.spec.model_dump())
            if path.startswith("steps.") and path.endswith(".output")
        }

    def start(self) -> RunResult:
        front = self._procedure.front
        refuse_unless_met(front.requires, self._host)
        self._refuse_unattended()
        with hiding(self._secrets), self._lock():
            if self._host is not None and front.lock != "none":
                underway.complete(self._host.handle)
            run_dir = new_run_dir(self._runs, front.id, self._procedure.text)
            return self._go(run_dir, random.token_hex(8), "run.started")

    def resume(self, record: RunRecord, *, accept_changes: bool = False) -> RunResult:
        refuse_to_go_on(self._procedure, self._values, record, "--resume", accept_changes)
        failure = StackctlError(record.cause) if record.undoing and record.cause else None
        return self._go_on(record, undoing=record.undoing, failure=failure)

    def undo(self, record: RunRecord, *, accept_changes: bool = False) -> RunResult:
        """Walk back what an unfinished run has done."""
        refuse_to_go_on(self._procedure, self._values, record, "--undo", accept_changes)
        return self._go_on(record, undoing=True, failure=None)

    def _go_on(self, record: RunRecord, *, undoing: bool, failure: StackctlError | None) -> RunResult:
        self._records = record.steps
        for step in record.steps.values():
            step.data = self._withheld.restored(step.data)
        with hiding(self._secrets), self._lock():
            return self._go(record.run_dir, record.salt, "run.resumed", undoing=undoing, failure=failure)

    # --- the run

    def _lock(self) -> contextlib.AbstractContextManager[Any]:
        if self._procedure.front.lock == "none" or self._host is None:
            return contextlib.nullcontext()
        return self._host.lock(f"run {self._procedure.id}")

    def _refuse_unattended(self) -> None:
        """Better to refuse now than to stop half-way for an answer that nobody can give."""
        if self._person.ask is not None:
            return
        for step in self._procedure.steps:
            spec = step.spec
            if spec.confirm and spec.when is None and not spec.check and not self._person.assume_yes:
                raise PreflightError(
                    f"step {spec.id} asks for a confirmation and there is no terminal: {spec.confirm}",
                    fix=f"stackctl run {self._procedure.id} --yes",
                )
            if spec.manual and spec.when is None and spec.id not in self._person.answers:
                raise PreflightError(
                    f"step {spec.id} is for a person and there is no terminal: {spec.manual.ask}",
                    fix=f"stackctl run {self._procedure.id} --answer {spec.id}=done",
                )

    def _go(
        self,
        run_dir: Path,
        salt: str,
        event: str,
        *,
        undoing: bool = False,
        failure: StackctlError | None = None,
    ) -> RunResult:
        front = self._procedure.front
        journal = Journal(run_dir)
        deadline = time.monotonic() + front.timeout
        context = Context(
            run_dir=run_dir,
            say=self._person.say,
            inputs=self._values,
            host=self._host,
            interactive=self._person.ask is not None,
        )
        stepper = Stepper(context, self._scope, journal, lambda: deadline)
        try:
            if undoing:
                journal.must_end()
            journal.begin(
                event,
                run=run_dir.name,
                procedure=front.id,
                version=front.version,
                sha256=self._procedure.sha256,
                salt=salt,
                inputs=inputs.redacted(front, self._values),
                inputs_fingerprint=inputs.fingerprint(self._values, salt),
                pid=os.getpid(),
                pid_started=usage.start_time(os.getpid()),
                boot=boot_id(),
                in_force=self._host.facts()["generation"] if self._host is not None else None,
                user=os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid()),
            )
            with StopSignals(self._person.say) as signals:
                self._asking = Asking(front.id, self._person, stepper, signals, self._scope)
                result = self._steps_then_undo(run_dir, journal, stepper, signals, undoing, failure)
            journal.must_end()
            journal.append(
                "run.finished",
                result=result.result,
                exit_code=result.exit_code,
                error=result.error.what if result.error else "",
                left_by_hand=list(result.left_by_hand),
            )
            if journal.lost is not None:
                self._person.say(f"the journal of this run is not complete: {journal.lost.strerror}")
            return result
        finally:
            journal.close()

    def _steps_then_undo(
        self,
        run_dir: Path,
        journal: Journal,
        stepper: Stepper,
        signals: StopSignals,
        undoing: bool,
        failure: StackctlError | None,
    ) -> RunResult:
        undone: list[str] = []

        def finish(
            result: Result, code: int, error: StackctlError | None = None, left: list[str] | None = None
        ) -> RunResult:
            return RunResult(
                run_dir.name, run_dir, result, code, _told(error), tuple(left or ()), dict(self._records),
                tuple(undone), self._stays(),
            )  # fmt: skip

        try:
            if not undoing:
                for step in self._procedure.steps:
                    if signals.asked is not None:
                        return finish("interrupted", 128 + signals.asked)
                    self._one(step, journal, stepper)
                return finish("done", 0)
        except NobodyToAsk as error:
            return finish("stopped", error.exit_code, error)
        except StackctlError as error:
            failure = error
        except StopNow as stop:
            return finish("interrupted", 128 + stop.signal_number)
        if failure is not None and not undoing and self._procedure.front.on_failure == "stop":
            return finish("stopped", failure.exit_code, failure)
        journal.must_end()
        try:
            journal.append("run.undoing", error=failure.what if failure else "")
            if failure is not None:
                self._person.say(f"failed: {failure.what}")
            left = Walk(self._procedure.steps, self._records, journal, stepper, self._person).back()
        except StopNow as stop:
            return finish("interrupted", 128 + stop.signal_number)
        undone += [step.id for step in self._records.values() if step.state == "undone"]
        if left:
            what = f"{self._procedure.id} failed and could not be undone completely"
            why = f"{what}: {failure.what}" if failure else what
            return finish("undo-failed", RollbackError.exit_code, RollbackError(why), left)
        if failure is None:
            return finish("undone", 0)
        if undone:
            return finish("undone", UnhealthyError.exit_code, failure)
        return finish("failed", failure.exit_code, failure)

    def _stays(self) -> tuple[str, ...]:
        """The steps that changed something which nothing takes back."""
        return tuple(
            step.spec.id
            for step in self._procedure.steps
            if (record := self._records.get(step.spec.id)) and record.changed and record.state != "undone"
        )

    def _one(self, step: Step, journal: Journal, stepper: Stepper) -> None:
        spec = step.spec
        before = self._records.get(spec.id)
        record = StepRecord(spec.id, title=spec.title)
        if before is not None:
            record.data, record.changed, record.answer = before.data, before.changed, before.answer
        self._records[spec.id] = record

        def move(state: str, detail: str = "", **fields: Any) -> None:
            record.state, record.detail = state, redacted(detail)
            if "data" in fields:
                fields["data"] = self._kept(spec.id, fields["data"])
            journal.append(f"step.{state}", step=spec.id, title=spec.title, detail=detail, **fields)

        if not stepper.wanted(step):
            move("not-needed", f"when: {spec.when}")
            return
        if before is not None and before.state in ("done", "skipped"):
            holds = stepper.still_holds(step)
            # What rests on a step that had to be done again, and cannot itself be asked, is done again, too.
            if holds.ok and (not self._again or spec.check or spec.verify or spec.manual):
                # Its state is the journal's: what an earlier life of this run changed is still there to undo.
                move(before.state, holds.detail, data=record.data, changed=record.changed)
                self._person.say(f"[{spec.id}] {spec.title}: still {before.state}")
                return
        if spec.manual is not None:
            record.answer = self._asking.manual(step)
            record.data = {"answer": record.answer}
            move("done", record.answer, answer=record.answer, data=record.data)
            return
        if spec.check:
            move("checking")
            found = stepper.check(step)
            if found.ok:
                record.data = dict(found.data)
                move("skipped", found.detail or "already so", data=found.data, changed=record.changed)
                self._person.say(f"[{spec.id}] {spec.title}: skipped, already so{_because(found.detail)}")
                return
        if spec.confirm is not None:
            self._asking.confirm(step)
        self._person.say(f"[{spec.id}] {spec.title}")
        self._again = True
        began = time.monotonic()
        changes = record.changed or _changes_something(step)
        move("running", changed=changes)
        record.changed = changes
        try:
            outcome = stepper.carry_out(step)
        except StackctlError as failure:
            duration = round(time.monotonic() - began, 3)
            journal.must_end()
            move("failed", failure.what, duration=duration, changed=record.changed)
            raise
        duration = round(time.monotonic() - began, 3)
        record.data, record.duration = dict(outcome.data), duration
        move("done", outcome.detail, data=outcome.data, duration=duration, changed=record.changed)
        self._person.say(f"[{spec.id}] done in {format_duration(duration)}{_because(outcome.detail)}")

    def _kept(self, step: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the journal remembers of a step; what its program said only where a later step names it."""
        wanted = {
            key: value for key, value in data.items() if key != "output" or step in self._outputs_wanted
        }
        return self._withheld.kept(wanted)

    def _scope(self) -> dict[str, Any]:
        scope: dict[str, Any] = {
            "inputs": self._values,
            "steps": {
                step.spec.id: _facts_of(self._records.get(step.spec.id)) for step in self._procedure.steps
            },
        }
        if self._host is not None:
            scope["stack"] = self._host.facts()
        return scope


def _told(error: StackctlError | None) -> StackctlError | None:
    """As it may be told: the run is over, and what was secret during it is told apart no more after it."""
    if error is not None:
        error.what = redacted(error.what)
        error.fix = redacted(error.fix) if error.fix else error.fix
        error.more = redacted(error.more) if error.more else error.more
    return error


def _changes_something(step: Step) -> bool:
    """An outside program may; of an action it is known."""
    return any(
        not isinstance(operation, Action) or not registry.find(operation.name).reads_only
        for operation in step.spec.run
    )


def _facts_of(record: StepRecord | None) -> dict[str, Any]:
    if record is None:
        return {"state": "pending", "changed": False}
    return {**record.data, "state": record.state, "changed": record.changed}


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""

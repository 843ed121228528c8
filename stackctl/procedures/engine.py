"""Runs a procedure: steps in order, every transition journalled, undo walked backwards when one fails.

Guarantees, each with a test: a step whose check holds is skipped; a crash at any point leaves a journal
from which
`resume` goes on; an undo that fails never stops the walk, and ends in exit 5 with what is left to do by hand.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stackctl.config.durations import format_duration
from stackctl.errors import PreflightError, RollbackError, StackctlError, UnhealthyError
from stackctl.procedures import document, inputs, registry
from stackctl.procedures.context import Context
from stackctl.procedures.document import Procedure, Step
from stackctl.procedures.expressions import fill
from stackctl.procedures.host import Host
from stackctl.procedures.journal import Journal, RunRecord, StepRecord, boot_id, new_run_dir
from stackctl.procedures.limits import StopNow, StopSignals
from stackctl.procedures.model import Action
from stackctl.procedures.requirements import refuse_unless_met
from stackctl.procedures.stepper import StepFailed, Stepper

Result = Literal["done", "failed", "undone", "undo-failed", "interrupted", "stopped"]


class ResumeRefused(PreflightError):
    """The run cannot be continued as it is."""


@dataclass
class Person:
    """How to reach the person: say a line, ask for a confirmation or an answer."""

    say: Callable[[str], None]
    ask: Callable[[str, str], str] | None = None
    assume_yes: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    run_id: str
    run_dir: Path
    result: Result
    exit_code: int
    error: StackctlError | None = None
    left_by_hand: tuple[str, ...] = ()
    steps: Mapping[str, StepRecord] = field(default_factory=dict)


class Engine:
    def __init__(
        self, procedure: Procedure, values: Mapping[str, Any], host: Host | None, runs: Path, person: Person
    ) -> None:
        self._procedure = procedure
        self._values = dict(values)
        self._host = host
        self._runs = runs
        self._person = replace(person, say=_whoever_listens(person.say))
        self._records: dict[str, StepRecord] = {}

    def start(self) -> RunResult:
        front = self._procedure.front
        refuse_unless_met(front.requires, self._host)
        self._refuse_unattended()
        with self._lock():
            run_dir = new_run_dir(self._runs, front.id)
            salt = random.token_hex(8)
            (run_dir / "procedure.md").write_text(self._procedure.text, encoding="utf-8")
            return self._go(run_dir, salt, "run.started")

    def resume(self, record: RunRecord, *, accept_changes: bool = False) -> RunResult:
        front = self._procedure.front
        if record.alive:
            raise ResumeRefused(
                f"run {record.id} is still at work: process {record.pid}",
                fix=f"stackctl procedures journal {record.id}",
            )
        if not accept_changes:
            changed = []
            if self._procedure.sha256 != record.sha256:
                changed.append(f"{front.id} was edited since the run began")
            if inputs.fingerprint(self._values, record.salt) != record.inputs_fingerprint:
                changed.append("the inputs are not those the run began with")
            if changed:
                raise ResumeRefused(
                    f"run {record.id} cannot be resumed: {' and '.join(changed)}",
                    fix=f"stackctl run {front.id} --resume --accept-changes",
                )
        self._records = record.steps
        with self._lock():
            return self._go(record.run_dir, record.salt, "run.resumed", undoing=record.undoing)

    def undo(self, record: RunRecord) -> RunResult:
        """Walk back what an unfinished run has done."""
        if record.alive:
            raise ResumeRefused(f"run {record.id} is still at work: process {record.pid}")
        self._records = record.steps
        with self._lock():
            return self._go(record.run_dir, record.salt, "run.resumed", undoing=True)

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

    def _go(self, run_dir: Path, salt: str, event: str, *, undoing: bool = False) -> RunResult:
        front = self._procedure.front
        secret = tuple(inputs.secrets(front, self._values))
        journal = Journal(run_dir, redact=secret)
        deadline = time.monotonic() + front.timeout
        context = Context(
            run_dir=run_dir,
            say=self._person.say,
            inputs=self._values,
            secrets=secret,
            host=self._host,
            interactive=self._person.ask is not None,
        )
        stepper = Stepper(context, self._scope, journal, lambda: deadline)
        journal.append(
            event,
            run=run_dir.name,
            procedure=front.id,
            version=front.version,
            sha256=self._procedure.sha256,
            salt=salt,
            inputs=inputs.redacted(front, self._values),
            inputs_fingerprint=inputs.fingerprint(self._values, salt),
            pid=os.getpid(),
            boot=boot_id(),
            user=os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid()),
        )
        try:
            with StopSignals(self._person.say) as signals:
                result = self._steps_then_undo(run_dir, journal, stepper, signals, undoing)
            journal.append(
                "run.finished",
                result=result.result,
                exit_code=result.exit_code,
                error=result.error.what if result.error else "",
                left_by_hand=list(result.left_by_hand),
            )
            return result
        finally:
            journal.close()

    def _steps_then_undo(
        self, run_dir: Path, journal: Journal, stepper: Stepper, signals: StopSignals, undoing: bool
    ) -> RunResult:
        def finish(
            result: Result, code: int, error: StackctlError | None = None, left: list[str] | None = None
        ) -> RunResult:
            return RunResult(
                run_dir.name, run_dir, result, code, error, tuple(left or ()), dict(self._records)
            )

        failure: StackctlError | None = None
        try:
            if not undoing:
                for step in self._procedure.steps:
                    if signals.asked is not None:
                        return finish("interrupted", 128 + signals.asked)
                    self._one(step, journal, stepper)
                return finish("done", 0)
        except _NobodyToAsk as error:
            return finish("stopped", error.exit_code, error)
        except StackctlError as error:
            failure = error
        except StopNow as stop:
            return finish("interrupted", 128 + stop.signal_number)
        if failure is not None and self._procedure.front.on_failure == "stop":
            return finish("stopped", failure.exit_code, failure)
        journal.append("run.undoing", error=failure.what if failure else "")
        try:
            walked, left = self._walk_back(journal, stepper, failure)
        except StopNow as stop:
            return finish("interrupted", 128 + stop.signal_number)
        if left:
            what = f"{self._procedure.id} failed and could not be undone completely"
            why = f"{what}: {failure.what}" if failure else what
            return finish("undo-failed", RollbackError.exit_code, RollbackError(why), left)
        if failure is None:
            return finish("undone", 0)
        if walked:
            return finish("undone", UnhealthyError.exit_code, failure)
        return finish("failed", failure.exit_code, failure)

    def _one(self, step: Step, journal: Journal, stepper: Stepper) -> None:
        spec = step.spec
        before = self._records.get(spec.id)
        record = StepRecord(spec.id, title=spec.title)
        if before is not None:
            record.data, record.changed, record.answer = before.data, before.changed, before.answer
        self._records[spec.id] = record

        def move(state: str, detail: str = "", **fields: Any) -> None:
            record.state, record.detail = state, detail
            journal.append(f"step.{state}", step=spec.id, title=spec.title, detail=detail, **fields)

        if not stepper.wanted(step):
            move("not-needed", f"when: {spec.when}")
            return
        if before is not None and before.state in ("done", "skipped"):
            holds = stepper.still_holds(step)
            if holds.ok:
                # Its state is the journal's: what an earlier life of this run changed is still there to undo.
                move(before.state, holds.detail, data=record.data, changed=record.changed)
                self._person.say(f"[{spec.id}] {spec.title}: still {before.state}")
                return
        if spec.manual is not None:
            record.answer = self._manual(step)
            move("done", record.answer, answer=record.answer, data={"answer": record.answer})
            record.data = {"answer": record.answer}
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
            self._confirm(step)
        self._person.say(f"[{spec.id}] {spec.title}")
        began = time.monotonic()
        record.changed = record.changed or _changes_something(step)
        move("running", changed=record.changed)
        try:
            outcome = stepper.carry_out(step)
        except StackctlError as failure:
            duration = round(time.monotonic() - began, 3)
            move("failed", failure.what, duration=duration, changed=record.changed)
            raise
        duration = round(time.monotonic() - began, 3)
        record.data, record.duration = dict(outcome.data), duration
        move("done", outcome.detail, data=outcome.data, duration=duration, changed=record.changed)
        self._person.say(f"[{spec.id}] done in {format_duration(duration)}{_because(outcome.detail)}")

    def _walk_back(
        self, journal: Journal, stepper: Stepper, failure: StackctlError | None
    ) -> tuple[bool, list[str]]:
        if failure is not None:
            self._person.say(f"failed: {failure.what}")
        walked = False
        left: list[str] = []
        for step in reversed(self._procedure.steps):
            spec = step.spec
            record = self._records.get(spec.id)
            if record is None or not record.changed or record.state == "undone":
                continue
            if not spec.undo:
                if spec.irreversible and record.state == "done":
                    left.append(f"{spec.id}: {spec.title} cannot be undone by the program")
                continue
            self._person.say(f"[{spec.id}] undo: {spec.title}")
            journal.append("step.undoing", step=spec.id, title=spec.title, changed=True)
            began = time.monotonic()
            try:
                outcome = stepper.undo(step)
                if not outcome.ok:
                    raise StepFailed(spec.id, outcome.detail)
            except StackctlError as error:
                record.state = "undo-failed"
                left.append(f"{spec.id}: {error.what.removeprefix(f'step {spec.id}: ')}")
                journal.append("step.undo-failed", step=spec.id, title=spec.title, detail=error.what)
                self._person.say(f"[{spec.id}] undo failed: {error.what}")
                continue
            walked = True
            record.state = "undone"
            journal.append(
                "step.undone", step=spec.id, title=spec.title, detail=outcome.detail,
                duration=round(time.monotonic() - began, 3),
            )  # fmt: skip
        return walked, left

    # --- the person

    def _confirm(self, step: Step) -> None:
        if self._person.assume_yes:
            return
        question = str(fill(step.spec.confirm, self._scope()))
        if self._person.ask is None:
            raise _NobodyToAsk(
                f"step {step.spec.id} asks for a confirmation and there is no terminal: {question}",
                fix=f"stackctl run {self._procedure.id} --resume --yes",
            )
        if self._person.ask(question, "yes-no") != "yes":
            raise StepFailed(step.spec.id, f"not confirmed: {question}", exit_code=PreflightError.exit_code)

    def _manual(self, step: Step) -> str:
        manual = step.spec.manual
        assert manual is not None
        answer = self._person.answers.get(step.spec.id)
        if answer is None and self._person.ask is None:
            raise _NobodyToAsk(
                f"step {step.spec.id} is for a person and there is no terminal: {manual.ask}",
                fix=f"stackctl run {self._procedure.id} --resume --answer {step.spec.id}=done",
            )
        if answer is None:
            assert self._person.ask is not None
            answer = self._person.ask(str(fill(manual.ask, self._scope())), manual.answer)
        if manual.answer != "text" and answer.lower() in ("no", "n", "false"):
            raise StepFailed(step.spec.id, f"answered no: {manual.ask}", exit_code=PreflightError.exit_code)
        return answer

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


class _NobodyToAsk(PreflightError):
    """A person is needed and none is there; the run waits, resumable."""


def _whoever_listens(say: Callable[[str], None]) -> Callable[[str], None]:
    """A pipe that nobody reads any more, or a terminal that is gone, must not end a run half-way."""

    def told(text: str) -> None:
        with contextlib.suppress(OSError):
            say(text)

    return told


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


def procedure_of(run_dir: Path) -> Procedure:
    """The procedure as it was when the run began."""
    return document.parse((run_dir / "procedure.md").read_text(encoding="utf-8"), run_dir / "procedure.md")

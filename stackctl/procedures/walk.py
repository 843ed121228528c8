"""The way back: the undo of every step that changed something, last one first.

An undo that fails never stops the walk; what it leaves is told, and can be tried again, or said to be done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from stackctl.errors import StackctlError
from stackctl.procedures.document import Step
from stackctl.procedures.journal import Journal, StepRecord
from stackctl.procedures.people import Person
from stackctl.procedures.stepper import StepFailed, Stepper
from stackctl.redact import redacted


class Walk:
    def __init__(
        self,
        steps: Sequence[Step],
        records: Mapping[str, StepRecord],
        journal: Journal,
        stepper: Stepper,
        person: Person,
    ) -> None:
        self._steps = steps
        self._records = records
        self._journal = journal
        self._stepper = stepper
        self._person = person

    def back(self) -> list[str]:
        """What is left to do by hand."""
        left: list[str] = []
        for step in reversed(self._steps):
            spec = step.spec
            record = self._records.get(spec.id)
            if record is None or not record.changed or record.state == "undone":
                continue
            cannot = spec.irreversible is True and not spec.undo and record.state in ("done", "undo-failed")
            if not spec.undo and not cannot:
                continue
            if record.state == "undo-failed" and (by_hand := self._person.answers.get(spec.id)):
                self._undone(record, f"by hand: {by_hand}", 0.0)
                continue
            if cannot:
                self._undo_failed(record, "cannot be undone by the program")
                left.append(f"{spec.id}: {spec.title} cannot be undone by the program")
                continue
            self._person.say(f"[{spec.id}] undo: {spec.title}")
            self._journal.append("step.undoing", step=spec.id, title=spec.title, changed=True)
            began = time.monotonic()
            try:
                outcome = self._stepper.undo(step)
                if not outcome.ok:
                    raise StepFailed(spec.id, outcome.detail)
            except StackctlError as error:
                left.append(redacted(f"{spec.id}: {error.what.removeprefix(f'step {spec.id}: ')}"))
                self._undo_failed(record, error.what)
                self._person.say(f"[{spec.id}] undo failed: {error.what}")
                continue
            self._undone(record, outcome.detail, time.monotonic() - began)
        return left

    def _undone(self, record: StepRecord, detail: str, seconds: float) -> None:
        record.state, record.detail = "undone", redacted(detail)
        self._journal.append(
            "step.undone", step=record.id, title=record.title, detail=detail, duration=round(seconds, 3)
        )

    def _undo_failed(self, record: StepRecord, why: str) -> None:
        record.state, record.detail = "undo-failed", redacted(why)
        self._journal.append("step.undo-failed", step=record.id, title=record.title, detail=why)

"""The person that a run speaks to: who hears what it says, and who is asked.

A question is a step border: nothing is under way, so one signal ends it, and so does the step's time limit.
Where nobody can answer, the run stops and can be gone on with.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackctl.errors import PreflightError
from stackctl.procedures.document import Step
from stackctl.procedures.expressions import fill
from stackctl.procedures.limits import StopSignals
from stackctl.procedures.stepper import StepFailed, Stepper
from stackctl.redact import without_known


@dataclass
class Person:
    """How to reach the person: say a line, ask for a confirmation or an answer (EOFError: nobody there)."""

    say: Callable[[str], None]
    ask: Callable[[str, str], str] | None = None
    assume_yes: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)


class NobodyToAsk(PreflightError):
    """A person is needed and none is there; the run waits, resumable."""


def whoever_listens(say: Callable[[str], None]) -> Callable[[str], None]:
    """A pipe that nobody reads any more, or a terminal that is gone, must not end a run half-way."""

    def told(text: str) -> None:
        with contextlib.suppress(OSError):
            say(without_known(text))

    return told


class Asking:
    def __init__(
        self,
        procedure: str,
        person: Person,
        stepper: Stepper,
        signals: StopSignals,
        scope: Callable[[], dict[str, Any]],
    ) -> None:
        self._procedure = procedure
        self._person = person
        self._stepper = stepper
        self._signals = signals
        self._scope = scope

    def confirm(self, step: Step) -> None:
        if self._person.assume_yes:
            return
        question = str(fill(step.spec.confirm, self._scope()))
        if self._answer(step, question, "yes-no", "asks for a confirmation", "--yes") != "yes":
            raise StepFailed(step.spec.id, f"not confirmed: {question}", exit_code=PreflightError.exit_code)

    def manual(self, step: Step) -> str:
        manual = step.spec.manual
        assert manual is not None
        question = str(fill(manual.ask, self._scope()))
        answer = self._person.answers.get(step.spec.id)
        if answer is None:
            fix = f"--answer {step.spec.id}={'yes' if manual.answer == 'yes-no' else 'done'}"
            answer = self._answer(step, question, manual.answer, "is for a person", fix)
        if manual.answer != "text" and answer.lower() in ("no", "n", "false"):
            raise StepFailed(step.spec.id, f"answered no: {question}", exit_code=PreflightError.exit_code)
        return answer

    def _answer(self, step: Step, question: str, kind: str, why: str, fix: str) -> str:
        """Nothing is under way while a person is asked: one signal is enough, and so is the time limit."""
        what = f"step {step.spec.id} {why} and {{}}: {question}"
        fix = f"stackctl run {self._procedure} --resume {fix}"
        if self._person.ask is None:
            raise NobodyToAsk(what.format("there is no terminal"), fix=fix)
        try:
            with self._signals.at_a_border():
                return self._stepper.limited(
                    step, functools.partial(self._person.ask, without_known(question), kind)
                )
        except EOFError:
            raise NobodyToAsk(what.format("the terminal is closed"), fix=fix) from None
        except StepFailed as late:
            raise NobodyToAsk(what.format(f"nobody answered: it {late.why}"), fix=fix) from None

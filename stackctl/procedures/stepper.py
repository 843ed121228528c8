"""One step: check, run, verify, with its time limit and retries; and its undo.

A step whose check holds is skipped. A step is done only when its `verify` holds; verify is asked again
until the step's time is over, because what was started may need a moment to be true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stackctl.config.durations import format_duration
from stackctl.errors import StackctlError, UnhealthyError
from stackctl.procedures.context import Context
from stackctl.procedures.document import Step
from stackctl.procedures.expressions import when
from stackctl.procedures.journal import Journal, JournalLost
from stackctl.procedures.limits import TimeLimitReached, time_limit
from stackctl.procedures.operations import all_hold
from stackctl.procedures.registry import Outcome

VERIFY_EVERY = 0.5
T = TypeVar("T")


class StepFailed(StackctlError):
    """A step did not reach what it promises; `exit_code` is that of its cause."""

    def __init__(
        self, step: str, why: str, *, exit_code: int = 1, fix: str | None = None, more: str | None = None
    ) -> None:
        super().__init__(f"step {step}: {why}", fix=fix, more=more)
        self.exit_code = exit_code
        self.why = why


class Stepper:
    def __init__(
        self,
        context: Context,
        scope: Callable[[], Mapping[str, Any]],
        journal: Journal | None,
        run_deadline: Callable[[], float],
    ) -> None:
        self._context = context
        self._scope = scope
        self._journal = journal
        self._run_deadline = run_deadline

    def wanted(self, step: Step) -> bool:
        return step.spec.when is None or when(step.spec.when, self._scope())

    def check(self, step: Step) -> Outcome:
        """Whether the step's desired state is there already. No check: it is not known to be."""
        if not step.spec.check:
            return Outcome(False, "no check")
        return self.ask(step, "check")

    def ask(self, step: Step, phase: str) -> Outcome:
        """Whether the operations of a phase hold; one that cannot even answer does not."""
        return self.limited(step, lambda: self._hold(step, phase))

    def still_holds(self, step: Step) -> Outcome:
        """On resume, for a step the journal calls done: ask what proves it, verify before check."""
        if step.spec.verify:
            return self.ask(step, "verify")
        if step.spec.check:
            return self.check(step)
        return Outcome(True, "done before")

    def carry_out(self, step: Step) -> Outcome:
        attempts = step.spec.retries + 1
        for attempt in range(1, attempts + 1):
            try:
                return self.limited(step, lambda: self._attempt(step))
            except StepFailed as failure:
                if attempt == attempts or time.monotonic() + step.spec.retry_delay >= self._run_deadline():
                    raise
                self._context.say(f"attempt {attempt} of {attempts}: {failure.what}; again")
                time.sleep(step.spec.retry_delay)
        raise AssertionError("unreachable")

    def undo(self, step: Step) -> Outcome:
        return self.limited(step, lambda: self._perform(step, "undo"), within_run=False)

    def _attempt(self, step: Step) -> Outcome:
        ran = self._perform(step, "run")
        if not ran.ok:
            raise StepFailed(step.spec.id, ran.detail or "failed")
        if not step.spec.verify:
            return ran
        while True:
            verified = self._hold(step, "verify")
            if verified.ok:
                return Outcome(True, verified.detail or ran.detail, {**ran.data, **verified.data})
            if self._context.remaining() <= VERIFY_EVERY:
                raise StepFailed(
                    step.spec.id, f"not verified: {verified.detail}", exit_code=UnhealthyError.exit_code
                )
            time.sleep(VERIFY_EVERY)

    def _hold(self, step: Step, phase: str) -> Outcome:
        """A check asks; an action that cannot even answer has not been satisfied."""
        try:
            return self._perform(step, phase)
        except StepFailed as failure:
            return Outcome(False, failure.what.removeprefix(f"step {step.spec.id}: "))

    def _perform(self, step: Step, phase: str) -> Outcome:
        try:
            operations = getattr(step.spec, phase)
            return all_hold(operations, self._context, self._scope(), self._journal, step.spec.id, phase)
        except (StepFailed, JournalLost):
            raise
        except StackctlError as error:
            problems = "; ".join(getattr(error, "problems", []))
            why = f"{error.what}: {problems}" if problems else error.what
            raise StepFailed(
                step.spec.id, why, exit_code=error.exit_code, fix=error.fix, more=error.more
            ) from error
        except Exception as error:
            raise StepFailed(step.spec.id, f"{type(error).__name__}: {error}") from error

    def limited(self, step: Step, work: Callable[[], T], *, within_run: bool = True) -> T:
        limit = step.spec.timeout
        left_of_run = self._run_deadline() - time.monotonic() if within_run else float("inf")
        allowed = min(limit, left_of_run)
        what = "the step" if limit <= left_of_run else "the whole procedure"
        outer = self._context.deadline
        self._context.deadline = time.monotonic() + max(allowed, 0.0)
        try:
            if allowed <= 0:
                raise TimeLimitReached(0)
            # The timer is the backstop: a step that watches its own deadline ends first, with a better
            # reason.
            with time_limit(allowed + 0.25):
                return work()
        except TimeLimitReached:
            shown = (
                format_duration(limit if limit <= left_of_run else 0)
                if limit <= left_of_run
                else "it was given"
            )
            raise StepFailed(
                step.spec.id, f"took longer than {what} may ({shown})", exit_code=UnhealthyError.exit_code
            ) from None
        finally:
            self._context.deadline = outer

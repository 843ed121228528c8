"""Whether a runner that owes an answer still works for it.

A runner is asked every few seconds, as long as somebody waits for it, and its reading thread answers at once
whatever the computing thread does. One that stays silent and uses no processor is frozen or deadlocked; one
that is silent because it reads an enormous text gets minutes. One that answers but has not finished a step of
its work for minutes is looked at in the same way: a long prompt on a slow processor is one step and takes its
time, but takes processor time as well; with the whole model on a GPU no step is that long. An idle runner is
never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BEAT_SECONDS = 5.0
# A server that was itself stopped for a while finds one question unanswered when it goes on, not six.
SILENT_BEATS = 6
STUCK_SECONDS = 300.0
# Less processor time than this in all that while is no computing.
LEAST_WORK = 3.0


@dataclass
class Heartbeat:
    """`begin` when somebody begins to wait, `heard` for all that comes, `beat` every `BEAT_SECONDS`."""

    processor_time: Callable[[], float]
    on_gpu: bool
    """Whether the model is wholly on GPUs."""
    answered: bool = True
    silent: int = 0
    pulse: int = -1
    still: int = 0
    at_answer: float = 0.0
    """Processor time when it was heard last."""
    at_step: float = 0.0
    """Processor time when the pulse was seen to move."""

    def begin(self) -> None:
        self.answered, self.silent, self.still = True, 0, 0
        self.at_answer = self.at_step = self.processor_time()

    def heard(self) -> None:
        self.answered = True

    def felt(self, pulse: int) -> None:
        """The number of steps of work that the runner has begun and ended."""
        self.answered = True
        if pulse != self.pulse:
            self.pulse, self.still = pulse, 0
            self.at_step = self.processor_time()

    def beat(self) -> str | None:
        """Why the runner is to be ended, or None."""
        now = self.processor_time()
        if self.answered:
            self.silent, self.at_answer = 0, now
        else:
            self.silent += 1
        self.answered = False
        self.still += 1
        long = STUCK_SECONDS / BEAT_SECONDS
        if self.silent >= SILENT_BEATS and (now - self.at_answer < LEAST_WORK or self.silent >= long):
            return f"it did not answer for {self.silent * BEAT_SECONDS:.0f} s"
        if self.still >= long and (self.on_gpu or now - self.at_step < LEAST_WORK):
            return f"it computed nothing for {self.still * BEAT_SECONDS:.0f} s"
        return None

"""Where the scheduler tells what it did; the HTTP side turns it into metrics, so neither knows the other."""

from __future__ import annotations


class Observer:
    """Counts for itself what the scheduler needs (a mean wait); subclasses export the rest."""

    def __init__(self) -> None:
        self._mean_wait = 1.0

    def mean_wait(self) -> float:
        """A moving average over recent waits, in seconds."""
        return self._mean_wait

    def waited(self, model: str, seconds: float) -> None:
        self._mean_wait += (seconds - self._mean_wait) * 0.1

    def rejected(self, model: str) -> None: ...

    def loaded(self, model: str, seconds: float) -> None: ...

    def load_failed(self, model: str) -> None: ...

    def evicted(self, model: str) -> None: ...

    def crashed(self, model: str) -> None: ...

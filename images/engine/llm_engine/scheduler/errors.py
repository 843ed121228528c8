"""What can keep a request from getting its model."""

from __future__ import annotations


class SchedulerError(Exception):
    """The text is for the client."""


class Busy(SchedulerError):
    """All waiting places are taken."""

    def __init__(self, queued: int, retry_after: int) -> None:
        super().__init__("server busy, please try again.  maximum pending requests exceeded")
        self.queued = queued
        self.retry_after = retry_after


class LoadError(SchedulerError):
    """The model could not be loaded."""


class LoadCrashed(LoadError):
    """Its runner died over it."""

    def __init__(self, text: str, last_lines: tuple[str, ...]) -> None:
        super().__init__(text)
        self.last_lines = last_lines
        """What it printed last; for the log."""


class CrashLoop(LoadError):
    """Its runner died so often that it is not loaded for now."""

    def __init__(self, count: int, reason: str, retry_after: int) -> None:
        super().__init__(
            f"the model's runner crashed {count} times in a row, the last time: {reason}; "
            f"it will not be loaded for another {retry_after} s"
        )
        self.retry_after = retry_after


class ShuttingDown(SchedulerError):
    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Unloaded(SchedulerError):
    """It was ordered out by somebody before it was loaded."""

    def __init__(self) -> None:
        super().__init__("the model was unloaded while it was being loaded")


class Abandoned(SchedulerError):
    """Nobody waits for this load any more."""

    def __init__(self) -> None:
        super().__init__("nobody waits for the model any more")

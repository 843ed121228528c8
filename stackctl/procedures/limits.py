"""Time limits that hold and signals that are obeyed.

A step runs in the main thread; an interval timer interrupts whatever it is blocked in, so a limit does not
depend on the step's good will. The first SIGINT or SIGTERM asks the run to stop at the next step border;
the second means now. A terminal that goes away (SIGHUP) asks for nothing: what was begun is brought to its
end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# What a step that is cut off may take to stop what it has started: services that are slow to end, an engine
# beside the old one, the copy of a folder.
CLEAN_UP = 120.0


class TimeLimitReached(BaseException):
    """Not an `Exception`: a step's own `except Exception` must not swallow it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"time limit of {seconds:g} s reached")
        self.seconds = seconds


class StopNow(BaseException):
    """The second signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitReached in the block when it takes longer, and again when its clean-up takes CLEAN_UP;
    an outer limit keeps its own time."""
    if not _in_main_thread() or seconds == float("inf"):
        yield
        return
    began = time.monotonic()

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise TimeLimitReached(seconds)

    outer_handler = signal.signal(signal.SIGALRM, expired)
    # Repeats, because a clean-up can hang, too; but only after one that does not has come to its end.
    outer_left, outer_interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), CLEAN_UP)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        if outer_left:
            left = max(outer_left - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, outer_interval)


class StopSignals:
    """Installed around a run; `asked` is the signal that asked for a stop, or None."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._outer: dict[int, Any] = {}
        self._waiting = False
        self.asked: int | None = None

    def __enter__(self) -> StopSignals:
        if _in_main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._outer[number] = signal.signal(number, self._received)
            # Under nohup it is ignored, and stays so: what this process starts inherits that.
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                self._outer[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hung_up)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._outer.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_a_border(self) -> Iterator[None]:
        """While a person is asked nothing is under way that a signal had to wait for."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.asked is not None or self._waiting:
            raise StopNow(number)
        self.asked = number
        self._say("stopping when this step is over (once more: now)")

    def _hung_up(self, _number: int, _frame: FrameType | None) -> None:
        self._say("the terminal is gone: going on to the end")

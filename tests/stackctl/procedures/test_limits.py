"""A time limit interrupts what it is set for, lets it clean up, and does not wait for that for ever."""

from __future__ import annotations

import signal
import time

import pytest

from stackctl.procedures import limits
from stackctl.procedures.limits import TimeLimitReached, time_limit


def next_alarm() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_what_is_cut_off_has_time_to_clean_up() -> None:
    with pytest.raises(TimeLimitReached, match=r"0\.01 s"), time_limit(0.01):
        try:
            signal.pause()
        finally:
            left = next_alarm()
    assert 60 < left < limits.CLEAN_UP + 1, "stopping a stack takes its services' own time"


def test_a_clean_up_that_hangs_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLEAN_UP", 0.05)
    cut_off = 0
    with pytest.raises(TimeLimitReached), time_limit(0.01):
        try:
            signal.pause()
        finally:
            try:
                signal.pause()
            finally:
                cut_off += 1
    assert cut_off == 1


def test_a_limit_inside_another_leaves_it_its_time() -> None:
    with pytest.raises(TimeLimitReached, match="300 s"), time_limit(300):
        with pytest.raises(TimeLimitReached, match=r"0\.01 s"), time_limit(0.01):
            signal.pause()
        assert 200 < next_alarm() < 301
        signal.setitimer(signal.ITIMER_REAL, 0.05, limits.CLEAN_UP)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            signal.pause()

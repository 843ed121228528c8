"""Checks side by side: time limits, dependencies, and a bug in one that does not blind the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from stackctl.health.check import Check, Look
from stackctl.health.collect import Known, closure, collect
from stackctl.health.model import Result, Status, ok
from stackctl.health.moment import Moment

NOW = Moment.now()


def fine(look: Look) -> Result:
    return ok("fine")


def make(
    name: str, run: Callable[[Look], Result] = fine, *, needs: tuple[str, ...] = (), timeout: float = 5.0
) -> Check:
    return Check(name, name, "x", "x", "x", run, needs=needs, timeout=timeout)


def critical(look: Look) -> Result:
    return Result(Status.CRITICAL, "down")


def test_all_run_at_the_same_time() -> None:
    gate = threading.Barrier(8)

    def meet(look: Look) -> Result:
        gate.wait(5)
        return ok("met")

    results = collect([make(f"c{n}", meet) for n in range(8)], {}, NOW)
    assert {result.summary for result in results.values()} == {"met"}


def test_a_late_check_is_unknown_and_delays_nobody() -> None:
    stop = threading.Event()

    def hang(look: Look) -> Result:
        stop.wait(30)
        return ok("too late")

    begun = time.monotonic()
    results = collect([make("slow", hang, timeout=0.3), make("quick")], {}, NOW)
    assert time.monotonic() - begun < 3
    stop.set()
    assert results["quick"].status is Status.OK
    assert results["slow"].status is Status.UNKNOWN
    assert "within 0.3 s" in results["slow"].summary


def test_an_error_in_a_check_is_unknown_with_its_text() -> None:
    def broken(look: Look) -> Result:
        raise KeyError("nope")

    results = collect([make("bad", broken), make("good")], {}, NOW)
    assert results["bad"].status is Status.UNKNOWN
    assert "KeyError: 'nope'" in results["bad"].summary
    assert results["good"].status is Status.OK


def test_one_cause_is_one_critical_however_long_the_chain() -> None:
    checks = [
        make("docker", critical),
        make("container", needs=("docker",)),
        make("engine", needs=("container",)),
        make("models", needs=("engine",)),
        make("disk"),
    ]
    results = collect(checks, {}, NOW)
    assert [results[name].status.name for name in ("container", "engine", "models")] == ["UNKNOWN"] * 3
    assert results["models"].blocked_by == "docker"
    assert results["disk"].status is Status.OK


def test_a_warning_does_not_block() -> None:
    def warning(look: Look) -> Result:
        return Result(Status.WARNING, "hm")

    results = collect([make("a", warning), make("b", needs=("a",))], {}, NOW)
    assert results["b"].status is Status.OK


def test_a_check_sees_the_results_it_needs_and_its_memory() -> None:
    def first(look: Look) -> Result:
        return ok("one")

    def second(look: Look) -> Result:
        return ok(f"{look.needs['a'].summary} {look.memory['n']} {look.elapsed:.0f}")

    known = {"b": Known({"n": 7}, NOW)}
    results = collect([make("a", first), make("b", second, needs=("a",))], known, NOW.plus(60))
    assert results["b"].summary == "one 7 60"


def test_closure_brings_what_is_needed_and_refuses_a_circle() -> None:
    checks = [make("a"), make("b", needs=("a",)), make("c", needs=("b",)), make("d")]
    assert [check.id for check in closure([checks[2]], checks)] == ["a", "b", "c"]
    circle = [make("a", needs=("b",)), make("b", needs=("a",))]
    with pytest.raises(ValueError, match="a -> b -> a"):
        closure(circle, circle)

"""Runs checks side by side: each under its own time limit, each after the ones it needs.

- a check that is late is UNKNOWN and left behind in its (daemon) thread: it cannot hold up the others;
- a check that raises is UNKNOWN with the error's text: a bug in one check must not blind the rest;
- a check whose need is CRITICAL or UNKNOWN is not run at all: it is UNKNOWN and says what it waits for, so
  that one cause is one message.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stackctl.health.check import Check, Look
from stackctl.health.model import Result, Status, unknown
from stackctl.health.moment import Moment


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier runs left for a check."""

    memory: dict[str, Any]
    last: Moment | None
    asked: bool = False


def closure(chosen: list[Check], every: list[Check]) -> list[Check]:
    """The chosen checks and all they need, needs first."""
    by_id = {check.id: check for check in every}
    ordered: dict[str, Check] = {}

    def visit(check: Check, path: tuple[str, ...]) -> None:
        if check.id in path:
            raise ValueError(f"checks need each other: {' -> '.join((*path, check.id))}")
        if check.id in ordered:
            return
        for need in check.needs:
            if need in by_id:
                visit(by_id[need], (*path, check.id))
        ordered[check.id] = check

    for check in chosen:
        visit(check, ())
    return list(ordered.values())


def collect(
    checks: list[Check],
    known: Mapping[str, Known],
    now: Moment,
    *,
    on_result: Callable[[Check, Result], None] | None = None,
) -> dict[str, Result]:
    """Results by id. `checks` must hold the needs of each (see `closure`), in any order."""
    arrived: queue.SimpleQueue[tuple[str, Result]] = queue.SimpleQueue()
    results: dict[str, Result] = {}
    running: dict[str, tuple[Check, float]] = {}
    ids = {check.id for check in checks}
    waiting = {check.id: check for check in checks}

    def finish(check: Check, result: Result) -> None:
        results[check.id] = result
        if on_result:
            on_result(check, result)

    while waiting or running:
        for check in [c for c in waiting.values() if all(n in results or n not in ids for n in c.needs)]:
            del waiting[check.id]
            blocker = next((n for n in check.needs if n in results and _blocks(results[n])), None)
            if blocker is not None:
                finish(check, _blocked(blocker, results[blocker]))
                continue
            deadline = time.monotonic() + check.timeout
            running[check.id] = (check, deadline)
            look = _look(check, known.get(check.id), now, deadline, results)
            threading.Thread(target=_run, args=(check, look, arrived), name=check.id, daemon=True).start()
        if not running:
            # Only blocked ones were left in this round; the next round may start or block their dependants.
            continue
        nearest = min(deadline for _, deadline in running.values())
        try:
            name, result = arrived.get(timeout=max(0.0, nearest - time.monotonic()) + 0.2)
        except queue.Empty:
            name, result = "", Result(Status.OK, "")
        if name in running:
            finish(running.pop(name)[0], result)
        for late, (check, deadline) in list(running.items()):
            if time.monotonic() > deadline + 0.2:
                del running[late]
                late_result = unknown(f"the check did not finish within {check.timeout:g} s")
                finish(check, replace(late_result, duration=check.timeout))
    return results


def _look(
    check: Check, known: Known | None, now: Moment, deadline: float, results: Mapping[str, Result]
) -> Look:
    known = known or Known({}, None)
    needs = {need: results[need] for need in check.needs if need in results}
    return Look(now, known.memory, known.last, deadline, needs, known.asked)


def _run(check: Check, look: Look, arrived: queue.SimpleQueue[tuple[str, Result]]) -> None:
    begun = time.monotonic()
    try:
        result = check.run(look)
    except Exception as error:  # noqa: BLE001 - one broken check must not blind the others
        result = unknown(f"the check failed: {type(error).__name__}: {error}")
    arrived.put((check.id, replace(result, duration=time.monotonic() - begun)))


def _blocks(result: Result) -> bool:
    return result.status in (Status.CRITICAL, Status.UNKNOWN)


def _blocked(need: str, result: Result) -> Result:
    root = result.blocked_by or need
    return replace(unknown(f"not looked at: {root} is not well"), blocked_by=root)

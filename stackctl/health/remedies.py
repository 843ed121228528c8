"""Lets a confirmed failure start the procedure that mends it: only when switched on, seldom, and on the
record.

Nobody is there to confirm anything, so nothing is confirmed: a step that asks first stops its procedure, and
the message says how a person goes on.

A remedy is a procedure's name (`stackctl run NAME`), or `restart SERVICE`. It is noted in the state file
before it is started, so a remedy that kills the host is still counted after the reboot.
"""

from __future__ import annotations

from collections.abc import Callable

from stackctl.durations import format_duration
from stackctl.health.model import Status
from stackctl.health.moment import Moment
from stackctl.health.own import environment, invocation
from stackctl.health.plan import Plan
from stackctl.health.report import Row
from stackctl.health.state import Memory
from stackctl.runtime import audit
from stackctl.runtime.command import run, tail

_DAY = 86400.0
_REFUSED = "not started: "


def apply(
    plan: Plan, rows: list[Row], memory: Memory, now: Moment, save: Callable[[], bool]
) -> dict[str, str]:
    """Start what is due; check id -> what is to be told: what was started, and a refusal only beside news."""
    if not plan.health.remedies.enabled:
        return {}
    outcomes: dict[str, str] = {}
    started: dict[str, str] = {}
    for row in rows:
        if not _wanted(row):
            continue
        name = str(row.check.remedy)
        if name not in started:
            refusal = _refusal(plan, memory, name, now)
            if refusal is None:
                memory.remedies.setdefault(name, []).append(now)
                if not save():
                    refusal = "not started: that it was could not be noted, so it could not be counted"
            started[name] = refusal or _start(plan, name, row.check.id)
        if row.event is not None or not started[name].startswith(_REFUSED):
            outcomes[row.check.id] = f"{name}: {started[name]}"
    return outcomes


def _wanted(row: Row) -> bool:
    return bool(
        row.check.remedy
        and row.fresh
        and row.silenced is None
        and row.state.hard is Status.CRITICAL
        and row.result.status is Status.CRITICAL
    )


def _refusal(plan: Plan, memory: Memory, name: str, now: Moment) -> str | None:
    ages = [now.since(at) for at in memory.remedies.get(name, [])]
    # A time that cannot be told counts as just now: better too seldom than a restart loop of our own.
    today = [age for age in (0.0 if age is None else age for age in ages) if age < _DAY]
    memory.remedies[name] = [at for at in memory.remedies.get(name, []) if (now.since(at) or 0.0) < _DAY]
    if len(today) >= plan.health.remedies.max_per_day:
        return f"not started: {len(today)} times within a day did not help, a person is needed"
    if today and min(today) < plan.health.remedies.min_gap:
        return f"not started: it ran {format_duration(min(today))} ago"
    return None


def _start(plan: Plan, name: str, check: str) -> str:
    words = name.split()
    argv = invocation(plan, *(words if words[0] == "restart" else ["run", *words]))
    done = run(argv, timeout=plan.health.remedies.timeout, env=environment(), check=False)
    outcome = "done" if done.returncode == 0 else f"failed ({done.returncode}): {_why(done.stderr)}"
    try:
        audit.record(
            plan.stack, "health.remedy", result=outcome, duration=done.duration, remedy=name, check=check
        )
    except OSError as error:
        outcome += f" (not in the audit log: {error.strerror})"
    return outcome


def _why(stderr: str) -> str:
    """The error and its fix: between them a procedure says how it ended, which nobody needs in a message."""
    lines = [line for line in stderr.splitlines() if line.startswith(("error: ", "fix: "))]
    return "; ".join(lines[-2:]) or tail(stderr, 2)

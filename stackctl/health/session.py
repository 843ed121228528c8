"""One health run from start to end: look, evaluate, mend, remember, tell.

The order is what makes it safe: what people are to be told is on disk together with the note that they were
told, before anything is sent; and it is sent before anything is mended, because a remedy may take a quarter
of an hour, or the host with it. What a remedy came to is a message of its own.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stackctl.health import registry, remedies, silence, state
from stackctl.health.check import Check
from stackctl.health.collect import Known, closure, collect
from stackctl.health.evaluator import CheckState, evaluate
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, unknown
from stackctl.health.moment import Moment
from stackctl.health.notify import channels, dispatch
from stackctl.health.notify.message import Message, from_row, remedied
from stackctl.health.plan import Plan
from stackctl.health.report import Report, Row
from stackctl.health.state import Memory
from stackctl.health.writers import textfile
from stackctl.runtime import lock

# An operation that has held the lock for longer than this is itself a reason to look.
_OPERATION_GRACE = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """`record`: remember, tell and mend; without it the run only looks."""

    patterns: tuple[str, ...] = ()
    record: bool = True
    wait: float = 0.0


SceneMaker = Callable[[], Scene]


def run(
    plan: Plan, scenes: SceneMaker, options: Options, *, begun: Callable[[], None] | None = None
) -> Report:
    """Busy when another recording run is at work; `begun` is called once this one has the right to run."""
    folder = plan.state_path / "health"
    if not options.record:
        return _run(plan, scenes, options, folder, state.load(folder / "health.json"))
    with state.run_lock(folder, wait=options.wait):
        if begun is not None:
            begun()
        return _run(plan, scenes, options, folder, state.load(folder / "health.json"))


def _run(plan: Plan, scenes: SceneMaker, options: Options, folder: Path, memory: Memory) -> Report:
    begun, now = time.monotonic(), Moment.now()
    silences = silence.SilenceFile(folder).active(now)
    scene = scenes()
    scene.undelivered = _undelivered(memory)
    every = registry.build(scene)
    chosen = registry.choose(every, options.patterns)
    due = [check for check in chosen if options.patterns or _due(check, memory, now)]
    rows = _look(plan, every, due, memory, silences, now, asked=bool(options.patterns))
    if options.record:
        rows = _recheck(plan, scenes, every, rows, memory, silences)
    fresh = {row.check.id: row for row in rows}
    rows = [fresh.get(check.id) or _resting(check, memory) for check in chosen]
    current = scene.generation()
    report = Report(
        plan.stack,
        now,
        tuple(rows),
        time.monotonic() - begun,
        memory.trouble,
        str(current.number) if current else None,
    )
    if options.record:
        problems, saved = _record(plan, report, every, memory, folder)
        unwritten = None if options.patterns else _write_textfile(plan, report)
        trouble = "; ".join([*problems, *([unwritten] if unwritten else [])]) or None
        report = replace(report, trouble=trouble, unsaved=not saved, unwritten=unwritten)
    return report


def _due(check: Check, memory: Memory, now: Moment) -> bool:
    found = memory.checks.get(check.id)
    if not check.interval or found is None or found.seen_at is None or found.seen is not Status.OK:
        return True
    elapsed = now.since(found.seen_at)
    # A timer that fires a little early must not make the check skip a whole turn.
    return elapsed is None or elapsed >= check.interval * 0.9


def _look(
    plan: Plan,
    every: list[Check],
    due: list[Check],
    memory: Memory,
    silences: list[silence.Silence],
    now: Moment,
    *,
    asked: bool = False,
) -> list[Row]:
    """Run the due checks and what they need; evaluate the due ones into `memory`."""
    known = {name: Known(found.memory, found.seen_at, asked) for name, found in memory.checks.items()} | {
        check.id: Known({}, None, asked) for check in due if check.id not in memory.checks
    }
    results = collect(closure(due, every), known, now)
    operation = _operation(plan)
    rows = []
    for check in due:
        result = results[check.id]
        if operation and check.during_operations and result.status in (Status.WARNING, Status.CRITICAL):
            result = replace(unknown(f"{operation}: {result.summary}"), memory=result.memory)
        why = _silenced(plan, silences, check.id, now)
        before = memory.checks.get(check.id, CheckState())
        after, event = evaluate(before, result, now, registry.policy(check, plan), silenced=why is not None)
        memory.checks[check.id] = after
        rows.append(Row(check, result, after, event, why))
    return rows


def _recheck(
    plan: Plan,
    scenes: SceneMaker,
    every: list[Check],
    rows: list[Row],
    memory: Memory,
    silences: list[silence.Silence],
) -> list[Row]:
    """Repeat what fails and is not confirmed in this run, when health.recheck says so."""
    if not plan.health.recheck:
        return rows
    for _ in range(max(registry.policy(check, plan).fail_after for check in every) - 1):
        open_ids = {row.check.id for row in rows if _unconfirmed(row)}
        if not open_ids:
            break
        time.sleep(plan.health.recheck)
        again = registry.build(scenes())
        new = _look(
            plan, again, [check for check in again if check.id in open_ids], memory, silences, Moment.now()
        )
        by_id = {row.check.id: row for row in new}
        rows = [_later(row, by_id.get(row.check.id)) for row in rows]
    return rows


def _unconfirmed(row: Row) -> bool:
    failing = row.result.status in (Status.WARNING, Status.CRITICAL)
    return failing and row.state.hard is not row.result.status and not row.state.flapping


def _later(row: Row, new: Row | None) -> Row:
    return row if new is None else replace(new, event=new.event or row.event)


def _resting(check: Check, memory: Memory) -> Row:
    """A check that is not due: what it last said."""
    found = memory.checks[check.id]
    result = Result(found.seen or Status.OK, found.summary, skipped=found.skipped)
    return Row(check, result, found, fresh=False)


def _operation(plan: Plan) -> str | None:
    """What else is being done to the stack right now: services may be away because of it."""
    holder = lock.holder(plan.stack)
    if not holder:
        return None
    try:
        age = time.time() - _timestamp(str(holder["since"]))
    except (KeyError, ValueError):
        return None
    if age > _OPERATION_GRACE:
        return None
    return f"{holder.get('command', 'another stackctl')} is at work (pid {holder.get('pid')})"


def _timestamp(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def _silenced(plan: Plan, silences: list[silence.Silence], check: str, now: Moment) -> str | None:
    by_hand = silence.covering(silences, check, now)
    if by_hand is not None:
        return by_hand.reason or f"by {by_hand.by}"
    planned = silence.planned(plan.health.maintenance, check, now)
    return planned.reason if planned else None


def _write_textfile(plan: Plan, report: Report) -> str | None:
    """The trouble with it, if there was any."""
    if not plan.health.textfile:
        return None
    try:
        textfile.write(Path(plan.health.textfile), report)
    except OSError as error:
        return f"{plan.health.textfile} cannot be written: {error.strerror}"
    return None


def _record(
    plan: Plan, report: Report, every: list[Check], memory: Memory, folder: Path
) -> tuple[list[str], bool]:
    """Remember, mend, tell; returns what went wrong on the way, and whether it is remembered.

    A memory that cannot be written stops no message: the disk that is full is what people must hear of.
    """
    path = folder / "health.json"
    trouble = [memory.trouble] if memory.trouble else []
    failed: dict[str, None] = {}

    def save() -> bool:
        try:
            state.save(path, memory)
        except OSError as error:
            failed[f"{path} cannot be written: {error.strerror}; nothing is remembered"] = None
            return False
        failed.clear()
        return True

    ids = {check.id for check in every}
    memory.checks = {name: found for name, found in memory.checks.items() if name in ids}
    memory.last_run = report.at
    host, output = socket.gethostname(), plan.notify.include_output

    def tell(messages: list[Message]) -> None:
        dispatch.queue_up(memory, messages, plan.notify, report.at)
        save()
        if memory.outbox:
            deliveries = dispatch.deliver(memory, plan.notify, channels.send, report.at)
            save()
            trouble.extend(f"{done.channel}: {done.problem}" for done in deliveries if done.problem)

    tell([from_row(report, row, host, include_output=output) for row in report.rows if row.event is not None])
    outcomes = remedies.apply(plan, list(report.rows), memory, report.at, save)
    if outcomes:
        mended = [row for row in report.rows if row.check.id in outcomes]
        tell([remedied(report, row, host, outcomes[row.check.id]) for row in mended])
    return [*dict.fromkeys(trouble), *failed], not failed


def _undelivered(memory: Memory) -> tuple[str, ...]:
    return tuple(f"{', '.join(entry['to'])} ({entry['message']['check']})" for entry in memory.outbox)


def forget(plan: Plan, ids: list[str]) -> list[str]:
    """Drop what these checks have learned; their states stay."""
    folder = plan.state_path / "health"
    with state.run_lock(folder, wait=30):
        memory = state.load(folder / "health.json")
        gone = [name for name in ids if name in memory.checks and memory.checks[name].memory]
        for name in gone:
            memory.checks[name] = replace(memory.checks[name], memory={})
        state.save(folder / "health.json", memory)
    return gone

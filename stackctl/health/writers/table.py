"""The form for a person: what is wrong first, what to do about it, then what is well."""

from __future__ import annotations

import shutil

from stackctl.durations import format_duration
from stackctl.health.evaluator import Policy
from stackctl.health.model import Status
from stackctl.health.report import Report, Row

_COLOURS = {Status.OK: "32", Status.WARNING: "33", Status.CRITICAL: "31", Status.UNKNOWN: "35"}


def table(report: Report, policies: dict[str, Policy], *, colour: bool, width: int | None = None) -> str:
    width = width or shutil.get_terminal_size((110, 24)).columns
    well = [row for row in report.rows if row.shown and row.result.status is Status.OK]
    rows = [*report.troubled(), *well]
    column = max((len(row.check.id) for row in rows), default=0)
    lines = [f"{report.stack}: {_paint(report.status(), colour)} {report.summary()}"]
    for row in rows:
        head = f"{_paint(row.result.status, colour)} {row.check.id:<{column}}  {row.result.summary}"
        lines.append(head + _remarks(row, policies.get(row.check.id)))
        if row.result.status is not Status.OK:
            indent = " " * (11 + column)
            lines += [indent + _cut(text, width - len(indent)) for text in row.result.details[:10]]
            lines.append(f"{indent}fix: {row.result.fix or row.check.do}")
    for cause, names in report.waiting().items():
        lines.append(f"{_paint(Status.UNKNOWN, colour)} not looked at because of {cause}: {', '.join(names)}")
    if report.trouble:
        lines.append(f"note: {report.trouble}")
    return "\n".join(lines)


def _remarks(row: Row, policy: Policy | None) -> str:
    remarks = []
    state = row.state
    if row.result.status not in (Status.OK, Status.UNKNOWN) and row.state.hard is Status.OK and policy:
        remarks.append(f"seen {min(state.failures, policy.fail_after)} of {policy.fail_after} times")
    if row.result.skipped and state.hard is not Status.OK:
        remarks.append(f"last known: {state.hard.name}")
    elif row.result.status is Status.OK and state.hard is not Status.OK:
        remarks.append(f"recovering from {state.hard.name}")
    if row.result.status is Status.UNKNOWN and state.hard is not Status.OK:
        remarks.append(f"last known: {state.hard.name}")
    if state.flapping:
        remarks.append("flapping")
    if row.silenced:
        remarks.append(f"silenced: {row.silenced}")
    if not row.fresh:
        remarks.append("not due")
    if row.result.duration >= 1:
        remarks.append(format_duration(row.result.duration))
    return f"  [{', '.join(remarks)}]" if remarks else ""


def _paint(status: Status, colour: bool) -> str:
    word = f"{status.name:<8}"
    return f"\x1b[{_COLOURS[status]}m{word}\x1b[0m" if colour else word


def _cut(text: str, width: int) -> str:
    return text if len(text) <= max(20, width) else text[: max(20, width) - 1] + "…"

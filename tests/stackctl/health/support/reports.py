"""Reports for the writers' tests, from (id, status, summary) triples."""

from __future__ import annotations

from stackctl.health.check import Check, Look
from stackctl.health.evaluator import CheckState
from stackctl.health.model import Metric, Result, Status, ok
from stackctl.health.moment import Moment
from stackctl.health.report import Report, Row

AT = Moment(1_700_000_000.0, 1000.0, "boot-1")


def check(name: str, **values: object) -> Check:
    def run(look: Look) -> Result:
        return ok("")

    return Check(name, name.title(), "looks", "why", f"mend {name}", run, **values)  # type: ignore[arg-type]


def row(name: str, status: Status, summary: str = "text", **values: object) -> Row:
    metrics = (Metric("size", 3.5, "s", 5, 9),)
    result = Result(status, summary, metrics=metrics, **values)  # type: ignore[arg-type]
    return Row(check(name), result, CheckState(hard=status, hard_since=AT, seen=status, seen_at=AT))


def report(*rows: Row) -> Report:
    return Report("home", AT, rows, 0.25, generation="7")

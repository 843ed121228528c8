"""The form for programs: one JSON document whose `schema` changes only when a reader must change."""

from __future__ import annotations

from typing import Any

from stackctl.health.evaluator import Event
from stackctl.health.model import Metric
from stackctl.health.moment import iso
from stackctl.health.report import Report, Row

SCHEMA = "stackctl.health/1"


def document(report: Report) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "stack": report.stack,
        "time": iso(report.at.wall),
        "status": report.status().name,
        "confirmed_status": report.status(confirmed_only=True).name,
        "summary": report.summary(),
        "duration_s": round(report.duration, 3),
        "trouble": report.trouble,
        "checks": [_row(row) for row in report.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    state = row.state
    return {
        "id": row.check.id,
        "title": row.check.title,
        "status": row.result.status.name,
        "summary": row.result.summary,
        "details": list(row.result.details),
        "skipped": row.result.skipped,
        "blocked_by": row.result.blocked_by,
        "fix": (row.result.fix or row.check.do) if row.result.status else None,
        "metrics": [_metric(metric) for metric in row.result.metrics],
        "duration_s": round(row.result.duration, 3),
        "fresh": row.fresh,
        "confirmed": {
            "status": state.hard.name,
            "since": iso(state.hard_since.wall) if state.hard_since else None,
            "failures": state.failures,
            "flapping": state.flapping,
        },
        "silenced": row.silenced,
        "event": _event(row.event),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "value": metric.value,
        "unit": metric.unit,
        "warn": metric.warn,
        "crit": metric.crit,
    }


def _event(event: Event | None) -> dict[str, str] | None:
    if event is None:
        return None
    return {"kind": str(event.kind), "status": event.status.name, "before": event.before.name}

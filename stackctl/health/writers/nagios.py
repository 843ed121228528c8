"""The Nagios plug-in form: `STATUS: text | 'label'=value[unit];warn;crit;min;max`, on one line.

A `|` or a line break from outside would end the text early, so both are replaced.
"""

from __future__ import annotations

from stackctl.health.model import Metric
from stackctl.health.report import Report

_LONGEST = 300


def line(report: Report, *, confirmed_only: bool = False) -> str:
    status = report.status(confirmed_only=confirmed_only)
    text = clean(f"{report.stack}: {report.summary()}")
    data = " ".join(
        perfdata(metric, row.check.id) for row in report.rows if row.shown for metric in row.result.metrics
    )
    return f"{status.name}: {text}" + (f" | {data}" if data else "")


def clean(text: str) -> str:
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def perfdata(metric: Metric, check: str) -> str:
    label = f"{check}.{metric.name}".replace("'", "''").replace("=", "_")
    limits = [_number(limit) for limit in (metric.warn, metric.crit, metric.low, metric.high)]
    while limits and limits[-1] == "":
        limits.pop()
    return ";".join([f"'{label}'={_number(metric.value)}{metric.unit}", *limits])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    # A share of a disk in bytes has no decimals worth a character of this line.
    return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:.0f}"

"""The form for node_exporter's textfile collector.

Written beside the target and renamed, readable by the collector, without timestamps (it refuses them); that
the file is fresh is shown by `stackctl_check_last_run_timestamp_seconds`.
"""

from __future__ import annotations

from pathlib import Path

from stackctl.health.report import Report
from stackctl.health.state import write_atomically

_HELP = {
    "stackctl_health_status": "Worst status of the last run: 0 ok, 1 warning, 2 critical, 3 unknown.",
    "stackctl_health_last_run_timestamp_seconds": "When the last run ended.",
    "stackctl_health_duration_seconds": "How long the last run took.",
    "stackctl_check_status": "Status seen by the check: 0 ok, 1 warning, 2 critical, 3 unknown.",
    "stackctl_check_confirmed_status": "Status after hysteresis: 0 ok, 1 warning, 2 critical.",
    "stackctl_check_last_run_timestamp_seconds": "When the check last looked.",
    "stackctl_check_duration_seconds": "How long the check took.",
    "stackctl_check_consecutive_failures": "Failing looks in a row.",
    "stackctl_check_flapping": "1 while the check changes too often.",
    "stackctl_check_silenced": "1 while messages about the check are held back.",
    "stackctl_check_value": "Measured values of a check.",
    "stackctl_generation_info": "The generation that is meant to run.",
}


def render(report: Report) -> str:
    stack = ("stack", report.stack)
    samples: dict[str, list[str]] = {name: [] for name in _HELP}

    def add(name: str, value: float, *labels: tuple[str, str]) -> None:
        text = ",".join(f'{key}="{_escape(text)}"' for key, text in (stack, *labels))
        samples[name].append(f"{name}{{{text}}} {value:.10g}")

    add("stackctl_health_status", report.status())
    add("stackctl_health_last_run_timestamp_seconds", report.at.wall + report.duration)
    add("stackctl_health_duration_seconds", report.duration)
    if report.generation:
        add("stackctl_generation_info", 1, ("generation", report.generation))
    for row in report.rows:
        if not row.shown:
            continue
        check = ("check", row.check.id)
        add("stackctl_check_status", row.result.status, check)
        add("stackctl_check_confirmed_status", row.state.hard, check)
        add("stackctl_check_duration_seconds", row.result.duration, check)
        add("stackctl_check_consecutive_failures", row.state.failures, check)
        add("stackctl_check_flapping", row.state.flapping, check)
        add("stackctl_check_silenced", row.silenced is not None, check)
        if row.state.seen_at:
            add("stackctl_check_last_run_timestamp_seconds", row.state.seen_at.wall, check)
        for metric in row.result.metrics:
            add("stackctl_check_value", metric.value, check, ("name", metric.name), ("unit", metric.unit))
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} gauge\n" + "\n".join(samples[name]) + "\n"
        for name, text in _HELP.items()
        if samples[name]
    )


def write(path: Path, report: Report) -> None:
    write_atomically(path, render(report), mode=0o644, sync=False)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

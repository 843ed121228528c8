"""What there is to check, and what each check is about: for --list, --explain and the docs page."""

from __future__ import annotations

from typing import Any

from stackctl.durations import format_duration
from stackctl.health.check import Check
from stackctl.health.evaluator import Policy


def listing(checks: list[Check]) -> str:
    width = max(len(check.id) for check in checks)
    return "\n".join(f"{check.id:<{width}}  {check.title}" for check in checks)


def explanation(check: Check, policy: Policy) -> str:
    lines = [
        f"{check.id}: {check.title}",
        f"  looks at    {check.looks_at}",
        f"  why         {check.why}",
        f"  what to do  {check.do}",
        f"  counts      as failed after {policy.fail_after} looks in a row, as well after {policy.ok_after}",
        f"  time limit  {format_duration(check.timeout)}",
    ]
    if check.interval:
        lines.append(f"  interval    at most every {format_duration(check.interval)} while it is well")
    if check.thresholds:
        lines.append(f"  thresholds  {check.thresholds}; change them in health.checks.{check.id}")
    if check.needs:
        lines.append(f"  needs       {', '.join(check.needs)}: not looked at while one of them fails")
    if check.remedy:
        lines.append(f"  remedy      {check.remedy}, started only with health.remedies.enabled: true")
    return "\n".join(lines)


def described(check: Check, policy: Policy) -> dict[str, Any]:
    return {
        "id": check.id,
        "title": check.title,
        "looks_at": check.looks_at,
        "why": check.why,
        "do": check.do,
        "needs": list(check.needs),
        "timeout_s": check.timeout,
        "interval_s": check.interval,
        "thresholds": check.thresholds or None,
        "remedy": check.remedy,
        "fail_after": policy.fail_after,
        "ok_after": policy.ok_after,
    }

"""All checks of a stack, with what stack.yaml says about each."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import replace
from pathlib import Path

from stackctl import shipped
from stackctl.errors import UsageError
from stackctl.health.check import Check
from stackctl.health.evaluator import Policy
from stackctl.health.look.scene import Scene
from stackctl.health.plan import Plan
from stackctl.health.silence import matches

MODULES = (
    "runtime",
    "containers",
    "ports",
    "engine",
    "gpu",
    "generation",
    "traffic",
    "web",
    "disk",
    "store",
    "drift",
    "tunnels",
    "backups",
    "images",
    "certificates",
    "clock",
    "messages",
    "commands",
)


def build(scene: Scene) -> list[Check]:
    """Every enabled check, changed as health.checks says; an override of an unknown check is an error."""
    found: list[Check] = []
    for module in MODULES:
        found += importlib.import_module(f"stackctl.health.checks.{module}").checks(scene)
    plan = scene.plan
    known = [check.id for check in found]
    for name in plan.health.checks:
        if name not in known:
            raise UsageError(f"health.checks.{name}: there is no such check{_near(name, known)}", fix=_LIST)
    for command in plan.health.commands:
        for need in command.needs:
            if need not in known:
                raise UsageError(f"health.commands.{command.id}.needs: no check '{need}'{_near(need, known)}")
    for name, override in plan.health.checks.items():
        if override.remedy:
            _refuse_remedy(name, override.remedy, plan)
    return [_overridden(check, plan) for check in found if _enabled(check, plan)]


def _refuse_remedy(check: str, remedy: str, plan: Plan) -> None:
    """A remedy that is not there would be noticed in the night that it is needed."""
    where = f"health.checks.{check}.remedy"
    first, *rest = remedy.split() or [""]
    if first == "restart":
        known = [service.name for service in plan.services]
        unknown = [name for name in rest if name not in known]
        if unknown or not rest:
            wrong = unknown[0] if unknown else ""
            raise UsageError(f"{where}: no service '{wrong}' in this stack{_near(wrong, known)}")
        return
    folder = Path(plan.stack_file).parent
    places = (shipped.folder("procedures"), folder / "procedures")
    if first and any((place / f"{first}.md").is_file() for place in places):
        return
    from stackctl.procedures import locate  # only here: a page whose name is not its id has to be read

    pages = locate.find_all(folder)
    if first not in pages and not (first.endswith(".md") and Path(folder, first).is_file()):
        why = f"no procedure '{first}'{_near(first, list(pages))}"
        raise UsageError(f"{where}: {why}", fix="stackctl procedures list")


_LIST = "stackctl health --list"
# For `longest_run`: needs behind one another, messages one after another, and a host that is very busy.
_DEEPEST, _MESSAGES, _GRACE = 5, 20, 60.0


def _enabled(check: Check, plan: Plan) -> bool:
    override = plan.health.checks.get(check.id)
    return override is None or override.enabled


def _overridden(check: Check, plan: Plan) -> Check:
    if check.timeout == 10.0:
        check = replace(check, timeout=plan.health.timeout)
    override = plan.health.checks.get(check.id)
    if override is None:
        return check
    return replace(
        check,
        timeout=override.timeout or check.timeout,
        interval=check.interval if override.interval is None else override.interval,
        remedy=override.remedy or check.remedy,
        fail_after=override.fail_after or check.fail_after,
        ok_after=override.ok_after or check.ok_after,
    )


def policy(check: Check, plan: Plan) -> Policy:
    health = plan.health
    return Policy(
        fail_after=check.fail_after or health.fail_after,
        ok_after=check.ok_after or health.ok_after,
        # A check that rests longer than the gap must not lose count because of it.
        stale_after=max(health.stale_after, 3 * check.interval),
        reminder=health.reminder,
        flap_window=health.flap.window,
        flap_changes=health.flap.changes,
        flap_daily=health.flap.daily,
        flap_hold=health.flap.hold,
    )


def longest_run(checks: list[Check], plan: Plan) -> float:
    """No run that is well takes longer: every time limit there is, with each need waited for."""
    looks = max((policy(check, plan).fail_after for check in checks), default=1) if plan.health.recheck else 1
    limits = sorted((check.timeout for check in checks), reverse=True)
    messages = max((channel.timeout for channel in plan.notify.channels), default=0.0) * _MESSAGES
    names = {check.remedy for check in checks if check.remedy} if plan.health.remedies.enabled else set()
    mending = plan.health.remedies.timeout * len(names)
    return looks * (sum(limits[:_DEEPEST]) + plan.health.recheck) + messages + mending + _GRACE


def choose(checks: list[Check], patterns: tuple[str, ...]) -> list[Check]:
    """The checks that the patterns name; a pattern that names none is an error with a suggestion."""
    known = [check.id for check in checks]
    for pattern in patterns:
        if not any(matches((pattern,), name) for name in known):
            raise UsageError(f"there is no check '{pattern}'{_near(pattern, known)}", fix=_LIST)
    return [check for check in checks if not patterns or matches(patterns, check.id)]


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""

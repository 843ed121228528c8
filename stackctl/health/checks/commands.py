"""A user's own checks: any program of the Nagios plug-in contract.

First line of stdout up to `|` is the text, after it come values; the exit code is the status, and anything
but 0 to 3 is UNKNOWN, as is a program that cannot be started or does not end in time.
"""

from __future__ import annotations

import re
from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, unknown
from stackctl.health.plan import Command
from stackctl.runtime.command import clean_environment, run, tail

_PERF = re.compile(r"('(?:[^']|'')+'|[^\s=']+)=(-?[\d.]+)([a-zA-Z%]*)(?:;([^;\s]*))?(?:;([^;\s]*))?")


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=f"command.{command.id}",
            title=command.id,
            looks_at=" ".join(command.argv),
            why="you asked for it in health.commands",
            do=command.explain or f"run it by hand: {' '.join(command.argv)}",
            run=partial(_look, command),
            needs=command.needs,
            timeout=command.timeout + 1,
            interval=command.interval,
            during_operations=False,
        )
        for command in scene.plan.health.commands
    ]


def _look(command: Command, look: Look) -> Result:
    environment = clean_environment(command.environment)
    done = run(command.argv, timeout=command.timeout, env=environment, check=False)
    if done.returncode == 124 and done.duration >= command.timeout:
        return unknown(f"did not end within {command.timeout:g} s")
    if done.returncode == 127 and not done.stdout:
        return unknown(f"cannot be run: {tail(done.stderr, 1)}")
    return reading(done.returncode, done.stdout, done.stderr)


def reading(code: int, stdout: str, stderr: str) -> Result:
    """The contract, applied to what a plug-in said."""
    lines = stdout.strip().splitlines()
    text, _, values = (lines[0] if lines else "").partition("|")
    rest = [line.partition("|") for line in lines[1:]]
    values = " ".join([values, *(after for _, _, after in rest)])
    details = tuple(before.strip() for before, _, _ in rest if before.strip())
    summary = text.strip() or tail(stderr, 1) or "said nothing"
    if code not in (0, 1, 2, 3):
        return unknown(f"exit code {code}: {summary}", details=details)
    return Result(Status(code), summary, details=details, metrics=_metrics(values))


def _metrics(text: str) -> tuple[Metric, ...]:
    found: dict[str, Metric] = {}
    for label, value, unit, warn, crit in _PERF.findall(text):
        try:
            number = float(value)
        except ValueError:
            continue
        name = label.strip("'").replace("''", "'")
        # A label that comes twice would make node_exporter refuse the whole textfile: the last one counts.
        found[name] = Metric(name, number, unit, _limit(warn), _limit(crit))
    return tuple(found.values())


def _limit(text: str) -> float | None:
    """A plain number; ranges have no single number, and are left out."""
    try:
        return float(text)
    except ValueError:
        return None

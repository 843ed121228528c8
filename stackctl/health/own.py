"""stackctl started by itself, for the same stack: remedies and slow questions run as processes."""

from __future__ import annotations

import os
import sys

from stackctl.health.plan import Plan
from stackctl.runtime.command import clean_environment

_PASSED_ON = ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "STACKCTL_OVERLAY")


def invocation(plan: Plan, *words: str) -> list[str]:
    start = "from stackctl.cli.main import main; main()"
    return [sys.executable, "-c", start, "--file", plan.stack_file, *words]


def environment() -> dict[str, str]:
    """Cron's is poor, but where the state lies must be the same."""
    return clean_environment({key: os.environ[key] for key in _PASSED_ON if key in os.environ})

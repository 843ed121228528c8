"""A scene without a runtime behind it, and a way to run one check of it alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from stackctl.health import registry
from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result
from stackctl.health.moment import Moment
from stackctl.health.plan import Plan
from stackctl.runtime.base import ServiceStatus, StackStatus
from stackctl.runtime.command import CommandResult, run


class HostView:
    """Says what the test says of the services; commands run on this host."""

    name = "host"

    def __init__(self, *services: ServiceStatus, stack: str = "test") -> None:
        self.services = services
        self.stack = stack

    def ping(self) -> str:
        return "host"

    def status(self) -> StackStatus:
        return StackStatus(self.stack, self.name, None, self.services)

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult:
        return run(argv, timeout=timeout, check=False)


def find(scene: Scene, name: str) -> Check:
    return next(check for check in registry.build(scene) if check.id == name)


def look(
    plan: Plan,
    name: str,
    *,
    view: HostView | None = None,
    memory: Mapping[str, Any] | None = None,
    now: Moment | None = None,
    last: Moment | None = None,
    needs: Mapping[str, Result] | None = None,
    asked: bool = False,
) -> Result:
    """One look of one check, with everything fetched anew."""
    check = find(Scene(plan, view or HostView()), name)
    at = now or Moment.now()
    return check.run(Look(at, dict(memory or {}), last, time.monotonic() + check.timeout, needs or {}, asked))

"""Does each service exist, run, stay up, and call itself healthy?

A container that restarts every minute is "running" whenever it is looked at, so the number of restarts is
compared with what an earlier run saw.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from stackctl.durations import format_duration
from stackctl.health.check import Check, Look
from stackctl.health.checks.runtime import TAKEN_DOWN
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, unknown
from stackctl.runtime.base import ServiceStatus


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=f"container.{service.name}",
            title=f"{service.name} runs",
            looks_at=f"state, restarts since the last look and health state of {service.name}",
            why="a stopped or restart-looping service serves nobody, whatever its last answer was",
            do=f"stackctl logs {service.name} --tail 50; then stackctl up",
            run=partial(_look, scene, service.name),
            needs=("runtime",),
            remedy=None,
        )
        for service in scene.plan.services
    ]


def _look(scene: Scene, name: str, look: Look) -> Result:
    found = scene.service(name)
    if found.state == "absent" and scene.taken_down():
        return unknown(TAKEN_DOWN)
    restarts = found.restarts - int(look.memory.get("restarts", found.restarts))
    if look.memory.get("id") not in (None, found.id):
        restarts = 0
    memory = {"restarts": found.restarts, "id": found.id}
    status, text = _judge(found, restarts)
    metrics = (Metric("restarts", found.restarts, "c"),)
    details = found.health_log if status is not Status.OK else ()
    return Result(status, text, details=details, metrics=metrics, memory=memory)


def _judge(found: ServiceStatus, restarts: int) -> tuple[Status, str]:
    if found.state == "absent":
        return Status.CRITICAL, "does not exist"
    if found.state == "restarting" or restarts >= 3:
        return Status.CRITICAL, f"restart loop: {max(restarts, 0)} restarts since the last look"
    if found.state != "running":
        why = " (killed: out of memory)" if found.oom_killed else ""
        code = "" if found.exit_code is None else f", exit code {found.exit_code}"
        return Status.CRITICAL, f"{found.state}{code}{why}"
    if found.health == "unhealthy":
        return Status.CRITICAL, "running, but its health check fails"
    if restarts > 0:
        return Status.WARNING, f"restarted {restarts} time{'s' if restarts > 1 else ''} since the last look"
    return Status.OK, f"running{_since(found)}" + (", starting" if found.health == "starting" else "")


def _since(found: ServiceStatus) -> str:
    if found.started_at is None:
        return ""
    age = (datetime.now(UTC) - found.started_at).total_seconds()
    return f" for {format_duration(max(0.0, age))}" if age >= 1 else ""

"""Do the services with a page answer? Asked through the published port, as a browser would."""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.http import HttpError
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status

# Where each service says that it is well; anything below 400 is well.
PATHS = {
    "webui": "/health",
    "comfyui": "/system_stats",
    "gateway": "/internal/health",
    "prometheus": "/-/ready",
    "grafana": "/api/health",
}


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=name,
            title=f"{name} answers",
            looks_at=f"GET {path} of {name} through its published port",
            why="a page that does not open is all that most users see of an outage",
            do=f"stackctl logs {name} --tail 50; stackctl restart {name}",
            run=partial(_look, scene, name, path),
            needs=(f"container.{name}",),
        )
        for name, path in PATHS.items()
        if scene.plan.service(name)
    ]


def _look(scene: Scene, name: str, path: str, look: Look) -> Result:
    try:
        reply = scene.ask(name, path, timeout=look.left)
    except HttpError as error:
        starting = scene.service(name).health == "starting"
        return Result(Status.WARNING if starting else Status.CRITICAL, str(error))
    status = Status.OK if reply.status < 400 else Status.CRITICAL
    return Result(status, f"{path} answers {reply.status}", metrics=(Metric("bytes", len(reply.body), "B"),))

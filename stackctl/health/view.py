"""Which eyes look at this stack's services."""

from __future__ import annotations

from stackctl.health.look.docker import DockerView
from stackctl.health.look.runtime import RuntimeView
from stackctl.health.look.scene import Scene
from stackctl.health.plan import Plan


def scene(plan: Plan) -> Scene:
    return Scene(plan, view(plan))


def view(plan: Plan) -> RuntimeView:
    return DockerView(plan.stack)

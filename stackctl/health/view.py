"""Which eyes look at this stack's services."""

from __future__ import annotations

import os

from stackctl.health.look.docker import DockerView
from stackctl.health.look.runtime import RuntimeView
from stackctl.health.look.scene import Scene
from stackctl.health.plan import Plan
from stackctl.runtime.generations import GenerationStore


def scene(plan: Plan) -> Scene:
    return Scene(plan, view(plan))


def view(plan: Plan) -> RuntimeView:
    """What the generation in force was made for; before the first one, what the stack file says."""
    current = GenerationStore(plan.stack).current()
    name = current.runtime if current else plan.runtime
    if name == "auto":
        docker = os.environ.get("DOCKER_HOST") or os.path.exists("/var/run/docker.sock")
        name = "docker" if docker else "local"
    if name == "local":
        from stackctl.health.look.local import LocalView

        return LocalView(plan.stack)
    return DockerView(plan.stack)

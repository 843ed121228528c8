"""Which eyes look at this stack's services."""

from __future__ import annotations

import os

from stackctl.errors import StackctlError
from stackctl.health.look.docker import DockerView
from stackctl.health.look.runtime import RuntimeView
from stackctl.health.look.scene import Scene
from stackctl.health.plan import Plan
from stackctl.runtime.docker import endpoint
from stackctl.runtime.generations import GenerationStore


def scene(plan: Plan) -> Scene:
    return Scene(plan, view(plan))


def view(plan: Plan) -> RuntimeView:
    """What the generation in force was made for; before the first one, what the stack file says."""
    current = GenerationStore(plan.stack).current()
    name = current.runtime if current else plan.runtime
    if name == "auto":
        name = "docker" if _engine_is_chosen() else "local"
    if name == "local":
        from stackctl.health.look.local import LocalView

        return LocalView(plan.stack)
    return DockerView(plan.stack)


def _engine_is_chosen() -> bool:
    try:
        engine = endpoint.resolve()
    except StackctlError:
        return True  # by a context that is not there: the look at it says so
    return not engine.plain or os.path.exists(engine.host.removeprefix("unix://"))

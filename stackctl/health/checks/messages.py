"""Do messages reach people? A channel that fails is told of on all the others."""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, ok


def checks(scene: Scene) -> list[Check]:
    if not scene.plan.notify.channels:
        return []
    return [
        Check(
            id="notify",
            title="Messages are delivered",
            looks_at="messages that wait because a channel did not take them",
            why="an alarm that nobody hears is none",
            do="stackctl silence --test sends a test message over every channel and shows what they answer",
            run=partial(_look, scene),
            during_operations=False,
        )
    ]


def _look(scene: Scene, look: Look) -> Result:
    if not scene.undelivered:
        return ok(f"{len(scene.plan.notify.channels)} channels, nothing waits")
    return Result(Status.WARNING, f"not delivered: {'; '.join(scene.undelivered)[:200]}")

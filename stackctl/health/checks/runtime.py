"""Does what runs the services answer at all? Everything else depends on it."""

from __future__ import annotations

from stackctl.health.check import Check, Look
from stackctl.health.look.runtime import RuntimeUnreachable
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, ok, unknown

TAKEN_DOWN = "taken down on purpose; stackctl up brings it back"


def checks(scene: Scene) -> list[Check]:
    def look(look: Look) -> Result:
        try:
            return ok(scene.runtime.ping())
        except RuntimeUnreachable as error:
            # The supervisor lives as long as its services; a Docker Engine is missed in any case.
            if scene.runtime.name == "local" and scene.taken_down():
                return unknown(TAKEN_DOWN)
            return Result(Status.CRITICAL, f"{scene.runtime.name} cannot be asked: {error}")

    return [
        Check(
            id="runtime",
            title="Runtime answers",
            looks_at="the Docker Engine's socket, or the supervisor of the local processes",
            why="when it is down nothing about the services can be known, and no failed one is restarted",
            do="systemctl status docker; for local processes: stackctl up",
            run=look,
            during_operations=False,
        )
    ]

"""Are the tunnels of this client up? Only those that health.tunnels names: the others may come and go."""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status
from stackctl.tunnel import state


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=f"tunnel.{name}",
            title=f"Tunnel {name} is up",
            looks_at="the tunnel's lock and its supervisor's last state",
            why="without it the stack is out of reach from here, however well it is there",
            do=f"stackctl tunnel status {name}; stackctl tunnel up {name}",
            run=partial(_look, name),
            during_operations=False,
        )
        for name in scene.plan.health.tunnels
    ]


def _look(name: str, look: Look) -> Result:
    found = state.read(name)
    if found is None:
        return Result(Status.CRITICAL, "was never up")
    now = str(found.get("state"))
    reconnects = int(found.get("reconnects") or 0)
    metrics = (Metric("reconnects", reconnects, "c"),)
    if now == "up":
        return Result(Status.OK, f"up, {reconnects} reconnects", metrics=metrics)
    error = f": {found['last_error']}" if found.get("last_error") else ""
    status = Status.CRITICAL if now in ("died", "failed", "stopped") else Status.WARNING
    return Result(status, f"{now}{error}", metrics=metrics)

"""Are the tunnels of this client up? Only those that health.tunnels names: the others may come and go.

What the tunnel last wrote is only what it believed: a process that was stopped, and a service that died
behind a tunnel that lives, are seen by a request that goes all the way through.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status
from stackctl.tunnel import state
from stackctl.tunnel.probe import Probe, probe


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=f"tunnel.{name}",
            title=f"Tunnel {name} is up",
            looks_at="the tunnel's lock, its last state, and an HTTP request through it to each service",
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
        dead = [each for each in _probes(found.get("forwards") or [], look) if not each.alive]
        if dead:
            said = "; ".join(f"{each.service} (port {each.local_port}): {each.said}" for each in dead)
            return Result(Status.CRITICAL, f"up, but nothing comes through: {said}", metrics=metrics)
        return Result(Status.OK, f"up, {reconnects} reconnects", metrics=metrics)
    error = f": {found['last_error']}" if found.get("last_error") else ""
    status = Status.CRITICAL if now in ("died", "failed", "stopped") else Status.WARNING
    return Result(status, f"{now}{error}", metrics=metrics)


def _probes(forwards: list[dict[str, Any]], look: Look) -> list[Probe]:
    """All at once, and done before the check's own time is up: each that is silent has to be named."""
    patience = max(0.05, 0.7 * look.left)
    found: list[Probe | None] = [None] * len(forwards)

    def ask(place: int, forward: dict[str, Any]) -> None:
        host, port = str(forward["local_host"]), int(forward["local_port"])
        found[place] = probe(str(forward["service"]), host, port, patience)

    threads = [
        threading.Thread(target=ask, args=(place, forward), daemon=True)
        for place, forward in enumerate(forwards)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.05, 0.9 * look.left))
    late = f"no answer within {patience:.1f} s"
    return [
        known or Probe(str(forward["service"]), int(forward["local_port"]), False, late)
        for known, forward in zip(found, forwards, strict=True)
    ]

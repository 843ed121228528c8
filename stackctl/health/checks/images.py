"""Is there a newer image? Only where health.checks.images is written: it asks registries, once a day."""

from __future__ import annotations

import json
from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, not_now, ok
from stackctl.health.own import environment, invocation
from stackctl.runtime.command import run, tail


def checks(scene: Scene) -> list[Check]:
    if "images" not in scene.plan.health.checks:
        return []
    return [
        Check(
            id="images",
            title="Images are current",
            looks_at="stackctl outdated: what the registries have for the images of the stack file",
            why="security fixes come as new images",
            do="stackctl upgrade --plan",
            run=partial(_look, scene),
            timeout=60,
            interval=86400,
            during_operations=False,
        )
    ]


def _look(scene: Scene, look: Look) -> Result:
    argv = invocation(scene.plan, "outdated", "--json")
    done = run(argv, timeout=look.left - 1, env=environment(), check=False)
    try:
        found = json.loads(done.stdout)["outdated"]
    except (ValueError, KeyError, TypeError):
        # Without internet there is nothing to say, and nothing is wrong.
        return not_now(f"could not ask: {tail(done.stderr, 1)}")
    if not found:
        return ok("every image is the newest")
    names = ", ".join(f"{one['service']} ({one['image']})" for one in found)
    return Result(Status.WARNING, f"newer images for {names}")

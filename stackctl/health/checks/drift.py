"""Does what runs still match what was rendered? By the hash of each service's settings, not by its looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Result, Status, ok, skipped, unknown
from stackctl.runtime.base import StackStatus
from stackctl.runtime.command import CommandError
from stackctl.runtime.generations import Generation


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id="drift",
            title="What runs is what was rendered",
            looks_at="the settings' hash of every service against the generation in force",
            why="a change made by hand is lost at the next up, and nobody knows that it is there",
            do="stackctl plan shows the difference; stackctl up puts the rendered state in force",
            run=partial(_look, scene),
            needs=("runtime",),
            timeout=30,
        )
    ]


def _look(scene: Scene, look: Look) -> Result:
    generation = scene.generation()
    if generation is None:
        return skipped("no generation is in force: stackctl up makes one")
    try:
        expected = _expected(scene.plan.stack, generation)
        if any(_differences(scene.status(), expected)):
            expected = _expected(scene.plan.stack, generation, anew=True)
    except (CommandError, OSError, ValueError, KeyError) as error:
        return unknown(f"the hashes of generation {generation.number} cannot be had: {error}")
    lines = list(_differences(scene.status(), expected))
    if lines:
        return Result(Status.WARNING, "; ".join(lines), details=tuple(lines))
    return ok(f"generation {generation.number} runs as rendered")


def _expected(stack: str, generation: Generation, *, anew: bool = False) -> dict[str, str]:
    if generation.runtime == "docker":
        from stackctl.runtime.docker.compose import hashes

        return hashes(stack, generation, anew=anew)
    document = json.loads(generation.file.read_text())
    return {name: str(body["hash"]) for name, body in document["services"].items()}


def _differences(status: StackStatus, expected: dict[str, str]) -> Iterator[str]:
    """Services that are away are the business of the container checks."""
    for found in status.services:
        if found.name not in expected:
            yield f"{found.name}: runs, but is not in the rendered stack"
        elif found.config_hash != expected[found.name]:
            yield f"{found.name}: runs with other settings than rendered"

"""What the new version must prove: health, stability, the API, sensible answers, and speed."""

from __future__ import annotations

import time

from stackctl.errors import UnhealthyError
from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.runtime.generations import Generation
from stackctl.upgrade import probe
from stackctl.upgrade.probe import Baseline


def services_of(generation: Generation) -> tuple[str, ...]:
    return tuple(generation.meta["services"])


def health(stack: Stack, generation: Generation, window: float) -> str:
    services = services_of(generation)
    began = time.monotonic()
    gate.wait_healthy(stack, services, deadline=stack.config.upgrade.healthy_within)
    took = time.monotonic() - began
    gate.stay_healthy(stack, services, window)
    gate.only_loopback(stack)
    return f"healthy after {took:.1f} s, and stable for {window:g} s"


def api(stack: Stack, generation: Generation) -> str:
    if "engine" not in services_of(generation):
        return "no engine in this stack"
    return f"engine {gate.engine_answers(stack.engine())}"


def measure(stack: Stack, model: str | None = None) -> Baseline | None:
    """None when there is no model to ask."""
    if "engine" not in stack.config.services.enabled():
        return None
    client = stack.engine(timeout=120)
    wanted = [model_.full_name for model_ in stack.config.models]
    chosen = model or probe.choose_model(client, stack.config.upgrade, wanted)
    return None if chosen is None else probe.measure(client, chosen, stack.config.upgrade)


def answers(new: Baseline, old: Baseline | None, stack: Stack) -> str:
    problems = probe.judge_answers(new, old, stack.config.upgrade)
    if problems:
        raise UnhealthyError(f"the new version answers nonsense: {'; '.join(problems)}")
    return f"{len(new.probes)} answers as before" if old else f"{len(new.probes)} answers are text"


def speed(new: Baseline, old: Baseline, stack: Stack) -> str:
    problems = probe.judge_speed(new, old, stack.config.upgrade)
    if problems:
        raise UnhealthyError(f"the new version is too slow: {'; '.join(problems)}")
    shown = [
        f"{after.tokens_per_second:.1f} tokens/s (before {before.tokens_per_second:.1f})"
        for after, before in zip(new.probes, old.probes, strict=True)
        if after.tokens_per_second and before.tokens_per_second
    ]
    return "; ".join(shown) or "too short an answer to time"


def proven(stack: Stack, generation: Generation, window: float) -> str:
    """What the old version must show after going back: healthy, answering, and a model that speaks."""
    shown = [health(stack, generation, window), api(stack, generation)]
    measured = measure(stack)
    if measured is not None:
        shown.append(answers(measured, None, stack))
    return "; ".join(shown)

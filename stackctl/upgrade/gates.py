"""What the new version must prove: health, stability, the API, sensible answers, and speed."""

from __future__ import annotations

import time

from stackctl.engine_api import EngineClient
from stackctl.errors import StackctlError, UnhealthyError
from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.operations.up import GOING_BACK
from stackctl.runtime.generations import Generation
from stackctl.upgrade import canary, probe
from stackctl.upgrade.probe import Baseline

MORE_TRIES = 3


def services_of(generation: Generation) -> tuple[str, ...]:
    return tuple(generation.meta["services"])


def ill(stack: Stack, services: tuple[str, ...]) -> dict[str, str]:
    """Service -> how it is, for those that are not healthy."""
    status = stack.runtime.status()
    found: dict[str, str] = {}
    for name in services:
        one = status.service(name)
        if (one.state, one.health) != ("running", "healthy"):
            found[name] = one.health if one.state == "running" else one.state
    return found


def health(stack: Stack, generation: Generation, window: float) -> str:
    return _healthy(stack, generation, window, stack.config.upgrade.healthy_within, patient=False)


def _healthy(
    stack: Stack, generation: Generation, window: float, within: float | None, *, patient: bool
) -> str:
    services = services_of(generation)
    began = time.monotonic()
    before = gate.wait_healthy(stack, services, deadline=within, patient=patient)
    took = time.monotonic() - began
    gate.stay_healthy(stack, services, before, window)
    gate.only_loopback(stack)
    return f"healthy after {took:.1f} s, and stable for {window:g} s"


def api(stack: Stack, generation: Generation) -> str:
    if "engine" not in services_of(generation):
        return "no engine in this stack"
    return f"engine {gate.engine_answers(stack.engine())}"


def measure(stack: Stack, model: str | None = None, at_most: int = probe.AT_MOST) -> Baseline | None:
    """None when there is no model to ask."""
    if "engine" not in stack.config.services.enabled():
        return None
    client = stack.engine(timeout=120)
    wanted = [model_.full_name for model_ in stack.config.models]
    chosen = model or probe.choose_model(client, stack.config.upgrade, wanted)
    return None if chosen is None else probe.measure(client, chosen, stack.config.upgrade, at_most)


def answers(new: Baseline, old: Baseline | None, stack: Stack) -> str:
    problems = probe.judge_answers(new, old, stack.config.upgrade)
    if problems:
        raise UnhealthyError(f"the new version answers nonsense: {'; '.join(problems)}")
    return f"{len(new.probes)} answers as before" if old else f"{len(new.probes)} answers are text"


def speed(stack: Stack, old: Baseline) -> str:
    """Against the baseline first; when that fails, both versions side by side, asked in turn."""
    config = stack.config.upgrade
    new = probe.measure(stack.engine(timeout=120), old.model, config)
    if probe.judge_speed(new, old, config):
        old, new = _once_more(stack, old, new)
    problems = probe.judge_speed(new, old, config)
    if problems:
        raise UnhealthyError(f"the new version is too slow: {'; '.join(problems)}")
    return shown(new, old)


def _once_more(stack: Stack, old: Baseline, new: Baseline) -> tuple[Baseline, Baseline]:
    """The baseline is of another moment: the host may have been idle then and be busy now."""
    current = stack.store.current()
    why_not = canary.no_room(stack)
    if current is not None and why_not is None:
        stack.say("slower than the baseline: starting the old version beside it, to ask both in turn")
        grace = stack.config.services.engine.start_grace
        try:
            with canary.running(stack, current, grace) as beside:
                return probe.in_turn(beside, stack.engine(timeout=120), old.model, stack.config.upgrade)
        except StackctlError as error:
            why_not = f"the old version cannot be asked beside it: {error.what}"
    stack.say(f"slower than the baseline: asking again ({why_not})")
    for _ in range(MORE_TRIES):
        again = probe.measure(stack.engine(timeout=120), old.model, stack.config.upgrade, probe.REPEATS)
        new = probe.better(new, again)
    return old, new


def shown(new: Baseline, old: Baseline) -> str:
    speeds = [
        f"{now:.1f} tokens/s (before {then:.1f}; {probe.how_much(after, before)})"
        for after, before in zip(new.probes, old.probes, strict=True)
        for now, then in [probe.speeds(after, before)]
        if now and then
    ]
    return "; ".join(speeds) or "too short an answer to time"


def canary_holds(client: EngineClient, old: Baseline, stack: Stack) -> str:
    """The new engine on its own port beside the old one: the answers and the speed of both asked in turn, for
    as many tokens as it takes to time them, which may be more than those of the baseline."""
    before, new = probe.in_turn(stack.engine(timeout=120), client, old.model, stack.config.upgrade)
    detail = answers(new, before, stack)
    problems = probe.judge_speed(new, before, stack.config.upgrade)
    if problems:
        raise UnhealthyError(f"the new version is too slow: {'; '.join(problems)}")
    return f"{detail}; {shown(new, before)}"


def proven(stack: Stack, generation: Generation, window: float) -> str:
    """What the old version must show after going back: healthy, answering, and a model that speaks.

    It worked before, so it gets all the time that a busy host may need: giving up on it helps nobody.
    """
    longest = gate.longest_grace(stack, services_of(generation))
    within = max(GOING_BACK, longest, stack.config.upgrade.healthy_within or 0.0)
    found = [_healthy(stack, generation, window, within, patient=True), api(stack, generation)]
    measured = measure(stack, at_most=1)
    if measured is not None:
        found.append(answers(measured, None, stack))
    return "; ".join(found)

"""A stack that changes from containers to local processes, or back: what runs on the old side is found, and
taken down when the new side starts, so that neither is orphaned and no port is fought over.

Looking commands go by where the stack runs, changing ones by what the stack file says. Data is in the same
folders on both sides.
"""

from __future__ import annotations

import dataclasses

from stackctl.errors import StackctlError
from stackctl.operations.context import Stack
from stackctl.runtime.base import Runtime, ServiceStatus
from stackctl.runtime.generations import Generation
from stackctl.runtime.selection import Choice, runtime_of

OTHER = {"docker": "local", "local": "docker"}


def where_it_runs(stack: Stack) -> Stack:
    """For looking at it: on the runtime of the generation in force, whatever the stack file says by now."""
    current = stack.store.current()
    return stack if current is None else on(stack, current)


def on(stack: Stack, generation: Generation) -> Stack:
    if generation.runtime == stack.runtime.name:
        return stack
    choice = Choice(generation.runtime, f"generation {generation.number} runs on it")
    return dataclasses.replace(stack, choice=choice, runtime=runtime_of(stack.config, choice.name))


def left_behind(stack: Stack) -> tuple[Runtime, list[ServiceStatus]] | None:
    """What of the stack runs on the other runtime; a stack that never was there is not looked for there."""
    name = OTHER[stack.runtime.name]
    if not any(generation.runtime == name for generation in stack.store.all()):
        return None
    runtime = runtime_of(stack.config, name)
    try:
        services = [one for one in runtime.status().services if one.state not in ("absent", "exited")]
    except StackctlError as error:
        current = stack.store.current()
        if current is not None and current.runtime == name:
            # Not refused: with an engine that is gone for good there would be no way on.
            stack.say(f"warning: the stack ran on {name}, which cannot be asked: {error.what}")
            stack.say("should its old services come back with it: stackctl down takes them away")
        return None
    return (runtime, services) if services else None


def leave(stack: Stack) -> None:
    """Take down what runs on the other runtime."""
    if (found := left_behind(stack)) is None:
        return
    runtime, services = found
    names = ", ".join(one.name for one in services)
    stack.say(f"moving from {runtime.name} to {stack.runtime.name}: taking down {names} there (data is kept)")
    runtime.down()

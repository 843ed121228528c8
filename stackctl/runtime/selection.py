"""Which runtime a stack uses, and why. `up` and the doctor both ask here: what the one starts is what the
other examined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stackctl.config import StackConfig
from stackctl.runtime.base import Runtime
from stackctl.runtime.command import CommandResult, run
from stackctl.runtime.generations import GenerationStore


@dataclass(frozen=True)
class Choice:
    name: str
    reason: str


def _run(argv: list[str]) -> CommandResult:
    return run(argv, timeout=60, check=False)


def choose(config: StackConfig, command: Callable[[list[str]], CommandResult] = _run) -> Choice:
    """`auto` stays with the runtime that the stack is up on: a Docker Engine that is down moves nothing."""
    if config.runtime != "auto":
        return Choice(config.runtime, "written in the stack file")
    if (current := GenerationStore(config.name).current()) is not None:
        return Choice(current.runtime, f"generation {current.number} runs on it")
    return by_what_answers(command)


def by_what_answers(command: Callable[[list[str]], CommandResult] = _run) -> Choice:
    """Where a new stack comes up."""
    found = command(["docker", "version", "--format", "{{.Server.Version}}"])
    if found.returncode != 0:
        why = "docker is not installed" if found.returncode == 127 else "no Docker Engine answers"
        return Choice("local", why)
    compose = command(["docker", "compose", "version", "--short"])
    if compose.returncode != 0:
        return Choice("local", "docker has no compose plug-in")
    return Choice("docker", f"Docker Engine {found.stdout.strip()} answers")


def runtime_of(config: StackConfig, name: str) -> Runtime:
    if name == "docker":
        from stackctl.runtime.docker.runtime import DockerRuntime

        return DockerRuntime(config)
    from stackctl.runtime.local.runtime import LocalRuntime

    return LocalRuntime(config)

"""Which runtime a stack uses, and why."""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.config import StackConfig
from stackctl.runtime.base import Runtime
from stackctl.runtime.command import run


@dataclass(frozen=True)
class Choice:
    name: str
    reason: str


def choose(config: StackConfig) -> Choice:
    if config.runtime != "auto":
        return Choice(config.runtime, "written in the stack file")
    found = run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=60, check=False)
    if found.returncode != 0:
        why = "docker is not installed" if found.returncode == 127 else "no Docker Engine answers"
        return Choice("local", why)
    compose = run(["docker", "compose", "version", "--short"], timeout=60, check=False)
    if compose.returncode != 0:
        return Choice("local", "docker has no compose plug-in")
    return Choice("docker", f"Docker Engine {found.stdout.strip()} answers")


def runtime_of(config: StackConfig, name: str) -> Runtime:
    if name == "docker":
        from stackctl.runtime.docker.runtime import DockerRuntime

        return DockerRuntime(config)
    from stackctl.runtime.local.runtime import LocalRuntime

    return LocalRuntime(config)

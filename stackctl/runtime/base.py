"""What every runtime can do, and the shape in which it tells of a stack: Docker and local processes alike.

A status is what the runtime sees now, not what was written down: a stopped service is `exited`, one that was
never made is `absent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from stackctl.runtime.command import CommandResult
from stackctl.runtime.generations import Generation

State = Literal["running", "restarting", "paused", "created", "exited", "absent"]
Health = Literal["healthy", "unhealthy", "starting", "none"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class PublishedPort:
    host_ip: str
    host_port: int
    container_port: int


@dataclass(frozen=True)
class ServiceStatus:
    name: str
    state: State
    health: Health = "none"
    restarts: int = 0
    started_at: datetime | None = None
    image: str = ""
    image_id: str = ""
    ports: tuple[PublishedPort, ...] = ()
    memory_bytes: int | None = None
    memory_limit: int | None = None
    cpu_seconds: float | None = None  # used since it started; the difference of two looks is the load
    exit_code: int | None = None  # of its last end, also when it runs again and its end was watched
    oom_killed: bool = False
    id: str = ""  # container id, or the pid of the local process
    config_hash: str = ""  # of what it runs with; the rendered file's hash differs when there is drift
    health_log: tuple[str, ...] = ()


@dataclass(frozen=True)
class StackStatus:
    stack: str
    runtime: str
    generation: int | None
    services: tuple[ServiceStatus, ...] = ()
    drift: tuple[str, ...] = field(default=())  # one line per difference between rendered and running
    notes: tuple[str, ...] = ()  # what this runtime does not do for the stack

    def service(self, name: str) -> ServiceStatus:
        for service in self.services:
            if service.name == name:
                return service
        return ServiceStatus(name, "absent")


@dataclass(frozen=True)
class LogLine:
    service: str
    text: str
    at: datetime | None = None


class Runtime(Protocol):
    """Changes go through `up`, `down` and `restart`; all the rest only looks."""

    name: str

    def up(
        self, generation: Generation, services: Sequence[str] | None = None, progress: Progress | None = None
    ) -> None:
        """Start what the generation says and return when it was started; health is for the caller to wait
        on."""
        ...

    def watch(self) -> Mapping[str, int]:
        """Restarts by id as they were before the last `up`, `restart` or `start`, or else as they are now.

        From now on it is noted how services end, so that `status` can tell it when they run again.
        """
        ...

    def down(self, volumes: bool = False) -> None: ...

    def restart(self, services: Sequence[str]) -> None: ...

    def stop(self, services: Sequence[str]) -> None: ...

    def start(self, services: Sequence[str]) -> None: ...

    def status(self) -> StackStatus: ...

    def logs(
        self,
        services: Sequence[str] | None = None,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]: ...

    def exec(
        self,
        service: str,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        input: str | None = None,
        check: bool = False,
    ) -> CommandResult: ...

    def exec_interactive(self, service: str, argv: Sequence[str]) -> int:
        """With our own standard streams; returns the exit code."""
        ...

    def inspect(self, service: str) -> dict[str, Any]:
        """Everything the runtime knows of one service; {} when it is absent."""
        ...

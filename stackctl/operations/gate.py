"""When a stack counts as up: every service healthy within its time, still so after a while, and really
answering.

Three tiers: the health state of each service, a stability window in which no restart may happen (a crash loop
is never healthy), then the engine's API and one token of a model through the published port.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

from stackctl.config.durations import format_duration
from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import UnhealthyError
from stackctl.operations.context import Stack
from stackctl.runtime.base import ServiceStatus, StackStatus

STABLE_FOR = 3.0


def wait_healthy(
    stack: Stack, services: Sequence[str], *, deadline: float | None = None, patient: bool = False
) -> StackStatus:
    """Return when all are healthy; UnhealthyError names the one that is not, and how.

    `patient`: one that is unhealthy is waited for, too. On a starved host its checks run out of time for a
    while.
    """
    ends = time.monotonic() + (deadline if deadline is not None else longest_grace(stack, services) + 5)
    restarts: dict[str, int] = {}
    said = ""
    while True:
        status = stack.runtime.status()
        waiting = []
        for name in services:
            service = status.service(name)
            restarts.setdefault(name, service.restarts)
            tired = patient and service.health == "unhealthy" and service.restarts <= restarts[name]
            if (why := broken(service, restarts[name])) and not tired:
                raise UnhealthyError(f"{name} {why}", fix=f"stackctl logs {name}")
            if service.state != "running" or service.health != "healthy":
                state = service.health if service.state == "running" else service.state
                waiting.append(f"{name} ({state})")
        if not waiting:
            return status
        left = ends - time.monotonic()
        if left <= 0:
            raise UnhealthyError(
                f"not healthy in time: {', '.join(waiting)}", fix=f"stackctl logs {waiting[0].split()[0]}"
            )
        line = f"waiting for {', '.join(waiting)}"
        if line != said:
            stack.say(f"{line}, at most {format_duration(round(left))}")
            said = line
        time.sleep(0.2)


def longest_grace(stack: Stack, services: Sequence[str]) -> float:
    """The time that the stack file gives the slowest of these services to become healthy."""
    enabled = stack.config.services.enabled()
    return max((enabled[name].start_grace for name in services if name in enabled), default=60.0)


def broken(service: ServiceStatus, restarts_before: int) -> str | None:
    """Why waiting longer is of no use, or None."""
    if service.oom_killed and service.state != "running":
        return f"was killed at its memory limit of {service.memory_limit} bytes"
    if service.restarts > restarts_before or service.state == "restarting":
        # A container that runs again has forgotten how it ended.
        code = f" with exit code {service.exit_code}" if service.exit_code else ""
        return f"ended{code} and was started again"
    if service.state == "exited":
        return f"ended with exit code {service.exit_code}"
    if service.health == "unhealthy":
        return "is unhealthy" + (f": {service.health_log[-1]}" if service.health_log else "")
    return None


def stay_healthy(stack: Stack, services: Sequence[str], window: float = STABLE_FOR) -> None:
    before = {one.name: one.restarts for one in stack.runtime.status().services}
    ends = time.monotonic() + window
    while time.monotonic() < ends:
        time.sleep(min(0.5, window))
        status = stack.runtime.status()
        for name in services:
            if why := broken(status.service(name), before.get(name, 0)):
                raise UnhealthyError(
                    f"{name} {why}, {window:g} s after it was healthy", fix=f"stackctl logs {name}"
                )


def only_loopback(stack: Stack) -> list[str]:
    """Checked on what runs, not on what was asked for. Returns `service address:port` lines."""
    published = []
    for service in stack.runtime.status().services:
        for port in service.ports:
            address = port.host_ip or "0.0.0.0"
            published.append(f"{service.name} {address}:{port.host_port}")
            if stack.config.expose != "lan" and not ipaddress.ip_address(address).is_loopback:
                raise UnhealthyError(
                    f"{service.name} is published on {address}:{port.host_port}, which is not loopback",
                    fix="stackctl down",
                )
    return published


def engine_answers(client: EngineClient) -> str:
    """Through the published port: a container on an internal network alone is healthy and unreachable."""
    try:
        return client.version()
    except EngineError as error:
        raise UnhealthyError(f"the engine does not answer at {client.base_url}: {error.what}") from error


def first_token(client: EngineClient, model: str) -> float:
    """Seconds that one token took, loading included."""
    started = time.monotonic()
    try:
        client.generate(model, "Hi", num_predict=1)
    except EngineError as error:
        raise UnhealthyError(f"model {model} does not answer: {error.what}") from error
    return time.monotonic() - started

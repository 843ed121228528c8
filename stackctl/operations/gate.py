"""When a stack counts as up: every service healthy within its time, really answering, and still running after
a while.

Three tiers: the health state of each service, the engine's API and one token of a model through the published
port, and a window without an end of any service: a crash loop is never healthy. The window is counted from
the start of the service, not from its health, so what it does until then (loading a model, building a
database, being probed) is part of it, and a service that has long been running is not waited for at all. It
is longer for one that was restarted by itself before: that is the reason to doubt it.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from stackctl.config.durations import format_duration
from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import UnhealthyError
from stackctl.operations.context import Stack
from stackctl.runtime.base import ServiceStatus, StackStatus

# How much longer one that was restarted by itself is watched: its restarts come at growing distances.
DOUBTED = 5
KILLED = 137


def wait_healthy(
    stack: Stack, services: Sequence[str], *, deadline: float | None = None, patient: bool = False
) -> Mapping[str, int]:
    """Return when all are healthy; UnhealthyError names the one that is not, and how.

    A service that ended since it was started anew is not healthy, whatever it is by the first look. What is
    returned (restarts by id, before the start) is for the later looks. `patient`: one that is unhealthy or
    was restarted until now is waited for, too. On a starved host its checks run out of time for a while.
    """
    ends = time.monotonic() + (deadline if deadline is not None else longest_grace(stack, services) + 5)
    before = stack.runtime.watch()
    status = stack.runtime.status()
    if patient:
        before = {one.id: one.restarts for one in status.services}
    said = ""
    while True:
        waiting = []
        for name in services:
            service = status.service(name)
            tired = (
                patient and service.health == "unhealthy" and service.restarts <= before.get(service.id, 0)
            )
            if (why := broken(service, before)) and not tired:
                raise UnhealthyError(f"{name} {why}", fix=f"stackctl logs {name}")
            if service.state != "running" or service.health != "healthy":
                state = service.health if service.state == "running" else service.state
                waiting.append(f"{name} ({state})")
        if not waiting:
            return before
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
        status = stack.runtime.status()


def longest_grace(stack: Stack, services: Sequence[str]) -> float:
    """The time that the stack file gives the slowest of these services to become healthy."""
    enabled = stack.config.services.enabled()
    return max((enabled[name].start_grace for name in services if name in enabled), default=60.0)


def broken(service: ServiceStatus, before: Mapping[str, int]) -> str | None:
    """Why waiting longer is of no use, or None."""
    again = service.restarts > before.get(service.id, 0) or service.state == "restarting"
    if again or service.state == "exited":
        return manner(service) + (" and was started again" if again else "")
    if service.health == "unhealthy":
        return "is unhealthy" + (f": {service.health_log[-1]}" if service.health_log else "")
    return None


def manner(service: ServiceStatus) -> str:
    """How it ended, as far as that is known."""
    code = service.exit_code
    limit = f"memory limit of {service.memory_limit} bytes"
    if service.oom_killed and code in (None, KILLED):
        return f"was killed at its {limit}" + (f" (exit code {code})" if code else "")
    if service.oom_killed:
        return f"ended with exit code {code}, after a part of it was killed at its {limit},"
    if code == KILLED and service.memory_limit:
        # Not every kernel tells the engine what it did.
        return f"was killed (exit code {code}), maybe at its {limit},"
    return "ended" if code is None else f"ended with exit code {code}"


def stay_healthy(stack: Stack, services: Sequence[str], before: Mapping[str, int], window: float) -> None:
    """No end and no failed health check for so long from now on."""
    ends = time.monotonic() + window
    while time.monotonic() < ends:
        time.sleep(min(0.5, window))
        look(stack, services, before)


def settle(stack: Stack, services: Sequence[str], before: Mapping[str, int]) -> None:
    """Until each has run for its `stable_for`, and longer where it was restarted before."""
    wanted = {name: one.stable_for for name, one in stack.config.services.enabled().items()}
    said = ""
    while True:
        status = look(stack, services, before)
        left = {name: lacks(status.service(name), wanted.get(name, 0.0)) for name in services}
        longest = max(left.values(), default=0.0)
        if longest <= 0:
            return
        names = [name for name, more in left.items() if more > 0]
        if (line := f"watching {', '.join(names)}") != said:
            doubted = [name for name in names if status.service(name).restarts]
            why = f" ({', '.join(doubted)} was restarted before)" if doubted else ""
            stack.say(f"{line} for {format_duration(max(1, round(longest)))} more{why}")
            said = line
        time.sleep(min(0.5, longest))


def lacks(service: ServiceStatus, stable_for: float) -> float:
    """Seconds that it has not yet run of those that it must run."""
    wanted = stable_for * (DOUBTED if service.restarts else 1)
    if service.started_at is None:
        return wanted
    # An engine whose clock is ahead of ours does not make us wait for longer than was asked for.
    return wanted - max(0.0, (datetime.now(UTC) - service.started_at).total_seconds())


def look(stack: Stack, services: Sequence[str], before: Mapping[str, int]) -> StackStatus:
    """UnhealthyError when one ended since before, or is not well."""
    status = stack.runtime.status()
    for name in services:
        if why := broken(status.service(name), before):
            raise UnhealthyError(f"{name} {why}, after it was healthy", fix=f"stackctl logs {name}")
    return status


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
        raise UnhealthyError(
            f"the engine does not answer at {client.base_url}: {error.what}", fix="stackctl logs engine"
        ) from error


def first_token(client: EngineClient, model: str) -> float:
    """Seconds that one token took, loading included."""
    started = time.monotonic()
    try:
        client.generate(model, "Hi", num_predict=1)
    except EngineError as error:
        raise UnhealthyError(
            f"model {model} does not answer: {error.what}", fix="stackctl logs engine"
        ) from error
    return time.monotonic() - started

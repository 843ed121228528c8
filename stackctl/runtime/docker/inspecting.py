"""Turns what the Docker Engine says of a container into a ServiceStatus."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, cast

from stackctl.runtime.base import Health, PublishedPort, ServiceStatus, State
from stackctl.runtime.docker.endings import Ending

_STATES = {"dead": "exited", "removing": "exited"}


def service_status(
    attributes: dict[str, Any],
    ending: Ending | None = None,
    memory: int | None = None,
    cpu_seconds: float | None = None,
) -> ServiceStatus:
    """`ending` is how it ended before it was started again: what Docker itself has forgotten by then."""
    state, config, host = attributes["State"], attributes["Config"], attributes["HostConfig"]
    labels: dict[str, str] = config.get("Labels") or {}
    health = state.get("Health") or {}
    status = _STATES.get(state["Status"], state["Status"])
    exit_code, oom_killed = state.get("ExitCode"), bool(state.get("OOMKilled"))
    if status == "running":
        exit_code = ending.exit_code if ending else None
        oom_killed |= ending is not None and ending.at_memory_limit
    return ServiceStatus(
        labels.get("com.docker.compose.service", attributes["Name"].lstrip("/")),
        cast(State, status),
        cast(Health, health.get("Status", "none") if status == "running" else "none"),
        attributes.get("RestartCount", 0),
        timestamp(state.get("StartedAt")),
        config.get("Image", ""),
        attributes.get("Image", ""),
        tuple(ports(attributes)),
        memory,
        host.get("Memory") or None,
        cpu_seconds,
        exit_code,
        oom_killed,
        attributes["Id"],
        labels.get("com.docker.compose.config-hash", ""),
        tuple(_health_line(entry) for entry in (health.get("Log") or [])[-5:]),
    )


def finished(attributes: dict[str, Any]) -> datetime | None:
    """When one that runs again ended the last time."""
    state = attributes["State"]
    return timestamp(state.get("FinishedAt")) if state["Status"] == "running" else None


def ports(attributes: dict[str, Any]) -> list[PublishedPort]:
    """As published now. A container that is stopped publishes nothing."""
    found = []
    for inside, bindings in sorted((attributes["NetworkSettings"].get("Ports") or {}).items()):
        for binding in bindings or []:
            container_port = int(inside.split("/")[0])
            found.append(PublishedPort(binding["HostIp"], int(binding["HostPort"]), container_port))
    return found


def timestamp(text: str | None) -> datetime | None:
    """Docker's nanoseconds are three digits too many; year 1 means never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))


def _health_line(entry: dict[str, Any]) -> str:
    return f"exit {entry.get('ExitCode')}: {' '.join(str(entry.get('Output', '')).split())[-200:]}"

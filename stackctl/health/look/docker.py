"""Docker, read through its socket. Five GETs do what the SDK does, at a hundredth of its import time."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, urlsplit

from stackctl.errors import StackctlError
from stackctl.health.http import HttpError, Reply, request
from stackctl.health.look.runtime import RuntimeUnreachable
from stackctl.runtime.base import Health, PublishedPort, ServiceStatus, StackStatus, State
from stackctl.runtime.command import CommandResult
from stackctl.runtime.docker import endpoint

_STATES = {"running", "restarting", "paused", "created", "exited"}


class DockerView:
    """The containers of one compose project."""

    name = "docker"

    def __init__(self, project: str, *, host: str | None = None, timeout: float = 5.0) -> None:
        self._project = project
        self._host = host
        self._timeout = timeout

    def ping(self) -> str:
        version = self._get("/version")
        return f"Docker Engine {version['Version']}"

    def status(self) -> StackStatus:
        label = f"com.docker.compose.project={self._project}"
        filters = quote(json.dumps({"label": [label]}))
        listed = self._get(f"/containers/json?all=1&filters={filters}")
        # Asked for by the one label that every intruder has, too; `compose run` is not part of the stack.
        ours = [item for item in listed if item["Labels"].get("com.docker.compose.oneoff") != "True"]
        services = tuple(service(self._get(f"/containers/{item['Id']}/json")) for item in ours)
        return StackStatus(self._project, self.name, None, tuple(sorted(services, key=lambda s: s.name)))

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult:
        begun = time.monotonic()
        container = next((found.id for found in self.status().services if found.name == service), None)
        if container is None:
            return CommandResult(tuple(argv), 127, "", f"there is no container for {service}", 0.0)
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv)}
        made = self._ask("POST", f"/containers/{container}/exec", body)
        if made.status != 201:
            return CommandResult(tuple(argv), 126, "", made.text, time.monotonic() - begun)
        run = made.json()["Id"]
        output = self._ask("POST", f"/exec/{run}/start", {"Detach": False, "Tty": False}, timeout=timeout)
        out, err = demultiplex(output.body)
        code = self._get(f"/exec/{run}/json")["ExitCode"]
        return CommandResult(tuple(argv), int(code or 0), out, err, time.monotonic() - begun)

    def _get(self, path: str) -> Any:
        reply = self._ask("GET", path)
        if reply.status != 200:
            raise RuntimeUnreachable(f"Docker Engine answered {reply.status}: {reply.text[:120]}")
        return reply.json()

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float | None = None
    ) -> Reply:
        try:
            host = self._host or endpoint.resolve().host
        except StackctlError as error:
            raise RuntimeUnreachable(error.what) from error
        parts = urlsplit(host)
        if parts.scheme not in ("unix", "tcp", "http"):
            raise RuntimeUnreachable(f"the engine is at {host}: only unix:// and tcp:// can be watched")
        try:
            return request(
                method,
                f"http://{parts.netloc if parts.scheme != 'unix' else 'docker'}{path}",
                timeout=timeout or self._timeout,
                body=json.dumps(body).encode() if body is not None else None,
                headers={"Content-Type": "application/json"},
                unix_socket=parts.path if parts.scheme == "unix" else None,
            )
        except HttpError as error:
            raise RuntimeUnreachable(str(error)) from error


def service(found: dict[str, Any]) -> ServiceStatus:
    """One inspected container in the words of every runtime."""
    state, labels = found["State"], found["Config"].get("Labels") or {}
    health = state.get("Health") or {}
    status = state["Status"] if state["Status"] in _STATES else "exited"
    return ServiceStatus(
        name=labels.get("com.docker.compose.service", found["Name"].lstrip("/")),
        state=cast(State, status),
        health=cast(Health, health.get("Status", "none")),
        restarts=int(found.get("RestartCount", 0)),
        started_at=_time(state.get("StartedAt", "")),
        image=found["Config"].get("Image", ""),
        image_id=found.get("Image", ""),
        ports=_ports(found),
        exit_code=None if status == "running" else int(state.get("ExitCode", 0)),
        oom_killed=bool(state.get("OOMKilled")),
        id=found["Id"],
        config_hash=labels.get("com.docker.compose.config-hash", ""),
        health_log=tuple(str(entry.get("Output", "")).strip() for entry in (health.get("Log") or [])[-3:]),
    )


def _ports(found: dict[str, Any]) -> tuple[PublishedPort, ...]:
    """Published now, or asked for by a container that is not running: both are worth a look."""
    published = (found.get("NetworkSettings") or {}).get("Ports") or {}
    wanted = (found.get("HostConfig") or {}).get("PortBindings") or {}
    ports = {
        PublishedPort(
            binding.get("HostIp") or "0.0.0.0",
            int(binding.get("HostPort") or 0),
            int(name.split("/")[0]),
        )
        for name, bindings in (*wanted.items(), *published.items())
        for binding in bindings or ()
    }
    return tuple(sorted(ports, key=lambda port: (port.container_port, port.host_ip)))


def _time(text: str) -> datetime | None:
    if not text or text.startswith("0001-"):
        return None
    whole, _, _ = text.partition(".")
    return datetime.fromisoformat(whole.rstrip("Z") + "+00:00")


def demultiplex(raw: bytes) -> tuple[str, str]:
    """Docker's attach stream: frames of (stream, length, bytes)."""
    out: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
    at = 0
    while at + 8 <= len(raw):
        stream, length = struct.unpack_from(">BxxxL", raw, at)
        out.setdefault(stream, bytearray()).extend(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return out[1].decode("utf-8", "replace"), out[2].decode("utf-8", "replace")

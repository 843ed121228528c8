"""The local processes, asked of their supervisor over its socket."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import paths
from stackctl.health.look.runtime import RuntimeUnreachable
from stackctl.runtime.base import PublishedPort, ServiceStatus, StackStatus
from stackctl.runtime.command import CommandResult, clean_environment, run
from stackctl.runtime.local.address import socket_path


class LocalView:
    name = "local"

    def __init__(self, stack: str, *, timeout: float = 5.0) -> None:
        self._stack = stack
        self._timeout = timeout

    def ping(self) -> str:
        return f"the supervisor runs {len(self._reports())} processes"

    def status(self) -> StackStatus:
        services = tuple(_status(report) for report in self._reports())
        return StackStatus(self._stack, self.name, None, services)

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult:
        """Run as the service would run it: with its environment."""
        found = next((report for report in self._reports() if report["name"] == service), None)
        if found is None:
            return CommandResult(tuple(argv), 127, "", f"{service} is not running", 0.0)
        environment = clean_environment(found["spec"]["environment"])
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}"
        return run(argv, timeout=timeout, env=environment, check=False)

    def _reports(self) -> list[dict[str, Any]]:
        path = socket_path(paths.state_dir(self._stack))
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(path))
                connection.sendall(b'{"op": "status"}\n')
                raw = b""
                while chunk := connection.recv(1 << 16):
                    raw += chunk
            services: list[dict[str, Any]] = json.loads(raw)["services"]
            return services
        except TimeoutError as error:
            raise RuntimeUnreachable("the supervisor does not answer in time") from error
        except (OSError, ValueError, KeyError) as error:
            raise RuntimeUnreachable(f"no supervisor at {path}: {error}") from error


def _status(report: dict[str, Any]) -> ServiceStatus:
    spec, started = report["spec"], report["started_at"]
    return ServiceStatus(
        name=report["name"],
        state=report["state"],
        health=report["health"],
        restarts=report["restarts"],
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
        image=spec["argv"][0],
        ports=tuple(PublishedPort(port["host_ip"], port["port"], port["port"]) for port in spec["ports"]),
        exit_code=report["exit_code"],
        oom_killed=report["oom_killed"],
        # Not the pid: that is a new one after each restart, and restarts of one service are counted.
        id=report["hash"],
        config_hash=report["hash"],
        health_log=tuple(report["health_log"])[-3:],
    )

"""The local runtime: talks to the stack's supervisor, and starts it when there is something to run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl.config import StackConfig
from stackctl.errors import StackctlError, UsageError
from stackctl.runtime.base import LogLine, Progress, PublishedPort, ServiceStatus, StackStatus
from stackctl.runtime.command import CommandResult, clean_environment, interactive, run, show
from stackctl.runtime.generations import Generation, GenerationStore
from stackctl.runtime.local import children
from stackctl.runtime.local import tail as tails
from stackctl.runtime.local.address import socket_path

LONGEST_LOG = 1 << 20
NOTES = (
    "limits are kept by looking each second, not by the kernel: a service can pass its memory or process "
    "limit for a moment before it is ended; cpus binds to whole processors",
)


class LocalRuntime:
    name = "local"
    patience = 5.0  # seconds that a supervisor may take to say that it is there

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.state = config.state_path

    def up(
        self, generation: Generation, services: Sequence[str] | None = None, progress: Progress | None = None
    ) -> None:
        self._ensure_supervisor()
        self._ask(
            {
                "op": "apply",
                "file": str(generation.file),
                "generation": generation.number,
                "services": list(services) if services is not None else None,
            }
        )

    def watch(self) -> Mapping[str, int]:
        """The supervisor waits for seconds before it starts one again: whoever looks sees how it ended."""
        return {one.id: one.restarts for one in self.status().services}

    def down(self, volumes: bool = False) -> None:
        if self.answers():
            self._ask({"op": "shutdown"})
            self._wait_until_gone()
        elif (pid := children.supervisor(self.state)) is not None:
            # It lives and hears nothing: with it the kernel ends its services.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        children.Children(self.state).end()

    def restart(self, services: Sequence[str]) -> None:
        self._ask({"op": "restart", "services": list(services)})

    def stop(self, services: Sequence[str]) -> None:
        self._ask({"op": "stop", "services": list(services)})

    def start(self, services: Sequence[str]) -> None:
        self._ask({"op": "start", "services": list(services)})

    def status(self) -> StackStatus:
        current = GenerationStore(self.config.name).current()
        ours = current is not None and current.runtime == "local"
        rendered = _rendered(current) if current and ours else {}
        number = current.number if current else None
        if not self.answers():
            gone = [ServiceStatus(name, "exited", image=spec["argv"][0]) for name, spec in rendered.items()]
            return StackStatus(self.config.name, self.name, number, tuple(gone), tuple(_drift(rendered, [])))
        found = self._ask({"op": "status"})
        services = tuple(_status(report) for report in found["services"])
        drift = tuple(_drift(rendered, found["services"]))
        return StackStatus(self.config.name, self.name, number, services, drift, NOTES)

    def logs(
        self,
        services: Sequence[str] | None = None,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        folder = self.state / "logs"
        there = sorted(path.stem for path in folder.glob("*.log")) if folder.is_dir() else []
        names = list(services) if services else there
        return tails.read(folder, names, tail=tail, since=since, follow=follow)

    def exec(
        self,
        service: str,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        input: str | None = None,
        check: bool = False,
    ) -> CommandResult:
        return run(argv, timeout=timeout, env=self._environment(service), input=input, check=check)

    def exec_interactive(self, service: str, argv: Sequence[str]) -> int:
        return interactive(argv, self._environment(service))

    def inspect(self, service: str) -> dict[str, Any]:
        if not self.answers():
            return {}
        reports = {report["name"]: report for report in self._ask({"op": "status"})["services"]}
        found: dict[str, Any] = reports.get(service, {})
        return found

    def _environment(self, service: str) -> dict[str, str]:
        """As the service sees it, without its secrets, and with the programs of this installation on the
        PATH."""
        report = self.inspect(service)
        if not report or report["state"] != "running":
            raise StackctlError(f"service {service} is not running", fix="stackctl up")
        environment = clean_environment(report["spec"]["environment"])
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
        return environment

    def answers(self) -> bool:
        try:
            self._ask({"op": "status"}, timeout=self.patience)
        except StackctlError:
            return False
        return True

    def _ensure_supervisor(self) -> None:
        if self.answers():
            return
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.state / "supervisor.log"
        long = path.exists() and path.stat().st_size > LONGEST_LOG
        argv = [sys.executable, "-m", "stackctl.runtime.local.supervisor", str(self.state)]
        show(argv)
        with path.open("wb" if long else "ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        deadline = time.monotonic() + 15
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                text = (self.state / "supervisor.log").read_text(errors="replace")[-500:]
                raise StackctlError(
                    f"the supervisor did not start: {text.strip()}", fix="stackctl up --debug"
                )
            time.sleep(0.02)

    def _wait_until_gone(self) -> None:
        deadline = time.monotonic() + 30
        while socket_path(self.state).exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        path = socket_path(self.state)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(str(path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                raw = b""
                while chunk := connection.recv(1 << 16):
                    raw += chunk
        except OSError as error:
            raise StackctlError(
                f"the supervisor of {self.config.name} does not answer: {error.strerror or error}",
                fix="stackctl up",
            ) from error
        try:
            answer = json.loads(raw)
            whole = isinstance(answer, dict)
        except ValueError:
            whole = False
        if not whole:
            said = f"{raw[:60]!r}" if raw else "nothing"
            raise StackctlError(
                f"the supervisor of {self.config.name} broke off its answer to {request['op']}: {said}",
                fix="stackctl status, then stackctl up",
            )
        if "error" in answer:
            raise UsageError(f"the supervisor refused {request['op']}: {answer['error']}")
        found: dict[str, Any] = answer
        return found


def _rendered(generation: Generation) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(generation.file.read_text())["services"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackctlError(
            f"generation {generation.number} cannot be read: {generation.file}: {error}",
            fix=f"rm -r {generation.path}, then stackctl up",
        ) from error
    return found


def _status(report: dict[str, Any]) -> ServiceStatus:
    spec = report["spec"]
    started = report["started_at"]
    return ServiceStatus(
        report["name"],
        report["state"],
        report["health"],
        report["restarts"],
        datetime.fromtimestamp(started, UTC) if started else None,
        spec["argv"][0],
        "",
        tuple(PublishedPort(address, port, port) for address, port in _listening(report)),
        report["memory"],
        spec["limits"]["memory"],
        report.get("cpu_seconds"),  # a supervisor of an older version does not tell
        report["exit_code"],
        report["oom_killed"],
        str(report["pid"] or ""),
        report["hash"],
        tuple(report["health_log"]),
    )


def _listening(report: dict[str, Any]) -> list[tuple[str, int]]:
    """What it really listens on, what it was asked for first; a supervisor of an older version tells only
    that."""
    asked = [(port["host_ip"], port["port"]) for port in report["spec"]["ports"]]
    if "listening" not in report:
        return asked
    numbers = [port for _, port in asked]
    found = [(str(address), int(port)) for address, port in report["listening"]]
    return sorted(found, key=lambda one: numbers.index(one[1]) if one[1] in numbers else len(numbers))


def _drift(rendered: dict[str, Any], reports: list[dict[str, Any]]) -> list[str]:
    running = {report["name"]: report for report in reports}
    lines = [f"{name}: rendered, but not running" for name in rendered if name not in running]
    lines += [f"{name}: running, but not in the rendered stack" for name in running if name not in rendered]
    lines += [
        f"{name}: runs with other settings than rendered"
        for name in rendered
        if name in running and running[name]["hash"] != rendered[name]["hash"]
    ]
    lines += [
        f"{name}: stopped by hand"
        for name in rendered
        if name in running and running[name]["state"] == "exited"
    ]
    return lines

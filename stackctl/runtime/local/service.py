"""One supervised process: start it, keep its log, watch its health and its memory, start it again with back-
off.

A service that dies is started again after 1, 2, 4 … 60 seconds; one that stays up for a minute starts from 1
again. It gets a session of its own, so that everything it starts can be stopped with it, and the kernel ends
it when the supervisor is killed: no orphan holds a port after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl.runtime.local import health, usage
from stackctl.runtime.local.logs import RotatingLog

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
FIRST_DELAY, LONGEST_DELAY, SETTLED = 1.0, 60.0, 60.0


@dataclass
class Service:
    name: str
    spec: dict[str, Any]
    folder: Path  # the generation's folder: configuration files lie there
    secrets: Path
    log: RotatingLog
    pick_cpus: Callable[[float], frozenset[int]]
    cpus: frozenset[int] = frozenset()  # those it is bound to; none is all
    state: str = "created"
    health: str = "none"
    restarts: int = 0
    pid: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    started_at: float = 0.0
    memory: int = 0
    health_log: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_up(), name=self.name)

    async def stop(self) -> None:
        """SIGTERM to the whole session, then SIGKILL after the grace period."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self.state, self.health, self.pid = "exited", "none", None

    async def _keep_up(self) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                await self._run_once()
            except (OSError, subprocess.SubprocessError) as error:
                self.state, self.exit_code, self.cpus = "exited", 127, frozenset()
                why = getattr(error, "strerror", None) or str(error)
                self.log.write(f"stackctl: cannot start {self.spec['argv'][0]}: {why}")
            if time.time() - self.started_at > SETTLED:
                delay = FIRST_DELAY
            self.state, self.health, self.pid = "restarting", "unhealthy", None
            self.log.write(
                f"stackctl: {self.name} ended with {self.exit_code}; starting again in {delay:g} s"
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            self.restarts += 1

    async def _run_once(self) -> None:
        self.started_at = time.time()
        self.oom_killed = False
        argv = [argument.replace("{generation}", str(self.folder)) for argument in self.spec["argv"]]
        limit = self.spec["limits"]["cpus"]
        self.cpus = bound = self.pick_cpus(limit) if limit else frozenset()
        environment = self._environment()
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: child_setup(bound),
            limit=1 << 20,
        )
        self._process, self.pid = process, process.pid
        self.state, self.health, self.exit_code = "running", "starting", None
        helpers = [
            asyncio.create_task(self._pump(process)),
            asyncio.create_task(self._watch_health(environment)),
            asyncio.create_task(self._watch_usage(process.pid)),
        ]
        try:
            self.exit_code = await process.wait()
        except asyncio.CancelledError:
            await self._terminate(process)
            raise
        finally:
            signal_session(process.pid, signal.SIGKILL)  # what it left behind
            self.cpus = frozenset()
            helpers[1].cancel()
            helpers[2].cancel()
            # Its last words; not wait_for, which would swallow our own cancellation here.
            await asyncio.wait([helpers[0]], timeout=2)

    async def _terminate(self, process: asyncio.subprocess.Process) -> None:
        signal_session(process.pid, signal.SIGTERM)
        try:
            self.exit_code = await asyncio.wait_for(process.wait(), self.spec["stop_grace"])
        except TimeoutError:
            self.log.write(f"stackctl: {self.name} did not stop in {self.spec['stop_grace']} s: killed")
            signal_session(process.pid, signal.SIGKILL)
            self.exit_code = await process.wait()

    def _environment(self) -> dict[str, str]:
        kept: tuple[str, ...] = (
            "PATH",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "HOME",
            "USER",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
        )
        kept += ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= self.spec["environment"]
        for variable, secret in self.spec["secret_environment"].items():
            try:
                environment[variable] = (self.secrets / secret).read_text().strip()
            except OSError as error:
                raise OSError(error.errno, f"its secret {secret}: {error.strerror}") from error
        return environment

    async def _pump(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line beyond the limit
                line = await process.stdout.read(1 << 16)
            if not line:
                return
            self.log.write(line.decode("utf-8", "replace").rstrip("\r\n"))

    async def _watch_health(self, environment: Mapping[str, str]) -> None:
        """Starting until the first success; unhealthy after three failures, or when the grace time is
        over."""
        failures = 0
        while True:
            await asyncio.sleep(0.25 if self.health == "starting" else 5.0)
            found = await health.probe(self.spec["health"], environment)
            if found.ok:
                failures, self.health = 0, "healthy"
                continue
            failures += 1
            self.health_log = [*self.health_log[-4:], f"{datetime.now(UTC):%H:%M:%S} {found.text}"]
            late = time.time() - self.started_at > self.spec["start_grace"]
            if (self.health == "starting" and late) or (self.health == "healthy" and failures >= 3):
                self.health = "unhealthy"

    async def _watch_usage(self, pid: int) -> None:
        """The memory and process limits, for hosts without a control group to give: past them is the end."""
        memory, pids = self.spec["limits"]["memory"], self.spec["limits"]["pids"]
        while True:
            used = await asyncio.to_thread(usage.of_session, pid)
            self.memory = used.memory
            if memory and used.memory > memory:
                self.oom_killed = True
                self.log.write(
                    f"stackctl: {self.name} uses {used.memory} bytes, its limit is {memory}: killed"
                )
                signal_session(pid, signal.SIGKILL)
            elif used.tasks > pids:
                self.log.write(f"stackctl: {self.name} has {used.tasks} tasks, its limit is {pids}: killed")
                signal_session(pid, signal.SIGKILL)
            await asyncio.sleep(1.0)

    def report(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "health": self.health,
            "restarts": self.restarts,
            "pid": self.pid,
            "exit_code": self.exit_code,
            "oom_killed": self.oom_killed,
            "started_at": self.started_at or None,
            "memory": self.memory,
            "listening": usage.listening(self.pid) if self.pid else [],
            "cpus": sorted(self.cpus) if self.pid else [],
            "cpu_seconds": usage.of_session(self.pid).cpu_seconds if self.pid else None,
            "hash": self.spec["hash"],
            "health_log": self.health_log,
            "spec": self.spec,
        }


def child_setup(cpus: frozenset[int]) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if cpus:
        os.sched_setaffinity(0, cpus)


def signal_session(pid: int, number: int) -> None:
    """The group and everything else in its session."""
    for member in usage.session_members(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)

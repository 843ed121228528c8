"""The new engine beside the old one, on another port, for as long as it is probed: under a compose project of
its own, or with the local runtime as a process (`runtime.local.beside`).

It sees the models read-only. It is started only where memory is left for a second engine.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stackctl.config.section import format_size
from stackctl.engine_api import EngineClient
from stackctl.errors import StackctlError, UnhealthyError
from stackctl.operations.context import Stack
from stackctl.runtime.command import run, tail
from stackctl.runtime.docker import compose
from stackctl.runtime.docker.project import refuse_strangers
from stackctl.runtime.generations import Generation
from stackctl.runtime.local import beside
from stackctl.runtime.ports import free_port

SPARE = 256 << 20
MEMINFO = Path("/proc/meminfo")


def no_room(stack: Stack) -> str | None:
    """Why a second engine does not fit beside the first; None when it does."""
    used = stack.runtime.status().service("engine").memory_bytes or 0
    found = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text())
    free = int(found[1]) * 1024 if found else 0
    if free < used + SPARE:
        return f"{format_size(free)} of memory are free, a second engine may need {format_size(used + SPARE)}"
    vram = sum(int(model.get("size_vram", 0)) for model in stack.engine().ps())
    if vram:
        asked = run(
            ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"],
            timeout=30,
            check=False,
        )
        left = sum(int(line) for line in asked.stdout.split() if line.isdigit()) << 20
        if asked.returncode == 0 and left < vram:
            return f"{format_size(left)} of GPU memory are free, a second engine needs {format_size(vram)}"
    return None


@contextlib.contextmanager
def running(stack: Stack, generation: Generation, within: float) -> Iterator[EngineClient]:
    port = free_port()
    if generation.runtime != "docker":
        log = stack.config.state_path / "canary.log"
        with beside.engine(generation, port, log) as process:
            client = EngineClient(f"http://127.0.0.1:{port}", timeout=120)
            _wait_for_answer(client, process, log, within)
            yield client
        return
    project = f"{stack.name}-canary"
    file = stack.config.state_path / "canary" / "compose.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(_document(generation, project, port)))
    remove(stack)
    try:
        run([*_argv(project, file), "up", "--detach", "--no-build"], timeout=within)
        _wait_healthy(project, within)
        yield EngineClient(f"http://127.0.0.1:{port}", timeout=120)
    finally:
        remove(stack)


def remove(stack: Stack) -> None:
    """Also after a crash: by the project's name alone. A process ends with whoever started it."""
    if stack.choice.name != "docker":
        return
    name = f"{stack.name}-canary"
    refuse_strangers(name, stack.name)
    run(["docker", "compose", "-p", name, "down", "--volumes", "--timeout", "2"], timeout=120)


def _argv(project: str, file: Path) -> list[str]:
    return compose.argv(project, file)


def _document(generation: Generation, project: str, port: int) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(generation.file.read_text())
    engine = document["services"]["engine"]
    engine["ports"] = [{"host_ip": "127.0.0.1", "published": str(port), "target": 11434, "protocol": "tcp"}]
    engine["restart"] = "no"
    engine.pop("depends_on", None)
    for mount in engine.get("volumes", []):
        mount["read_only"] = True
    wanted = set(engine.get("secrets", []))
    return {
        **document,
        "name": project,
        "services": {"engine": engine},
        "secrets": {name: body for name, body in document.get("secrets", {}).items() if name in wanted},
    }


def _wait_healthy(project: str, within: float) -> None:
    ends = time.monotonic() + within
    while True:
        asked = run(
            [
                "docker",
                "inspect",
                "--format",
                "{{.State.Status}} {{.State.Health.Status}}",
                f"{project}-engine-1",
            ],
            timeout=30,
        )
        state, health = asked.stdout.split()
        if health == "healthy":
            return
        if state != "running" or health == "unhealthy" or time.monotonic() > ends:
            raise UnhealthyError(f"the canary is {state} and {health}")
        time.sleep(0.3)


def _wait_for_answer(
    client: EngineClient, process: subprocess.Popen[bytes], log: Path, within: float
) -> None:
    ends = time.monotonic() + within
    while True:
        with contextlib.suppress(StackctlError):
            client.version()
            return
        if process.poll() is not None or time.monotonic() > ends:
            state = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
            said = tail(log.read_text(errors="replace")) or "it said nothing"
            raise UnhealthyError(f"the canary {state}: {said}")
        time.sleep(0.1)

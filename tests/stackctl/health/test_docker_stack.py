"""Containers broken by hand on a real Docker Engine: stopped, looping, exposed, robbed of the GPU."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.stacks import Folder, engine, free_port, wait_for

pytestmark = pytest.mark.docker

NVIDIA_SMI = """#!/bin/sh
if [ -e /tmp/lost ]; then echo "Failed to initialize NVML: Unknown Error"; exit 255; fi
if [ "$1" = -L ]; then echo "GPU 0: Stand-in 24GB"; exit; fi
echo "Stand-in 24GB, 20000, 24576, 61, 0, Not Active, Not Active, 17"
"""
HANGS = """#!/bin/sh
exec sleep 300
"""
LOST = """#!/bin/sh
echo "Failed to initialize NVML: Unknown Error"; exit 255
"""


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def health(folder: Folder, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = folder.run("health", "--json", *arguments)
    assert done.out, done.err
    return done.code, {check["id"]: check for check in done.json["checks"]}


def settings(image: str, port: int, **more: Any) -> dict[str, Any]:
    document = engine(image, port, **more)
    # The stand-in lists no models: what is tested here are containers.
    return document | {"health": {"fail_after": 2, "checks": {"models": {"enabled": False}}}}


def container(folder: Folder) -> str:
    return docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={folder.name}")


def restarts(name: str) -> int:
    return int(docker("inspect", "-f", "{{.RestartCount}}", name))


def more_restarts(name: str, before: int) -> bool:
    return restarts(name) > before


def test_containers_broken_by_hand(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(settings(standin_image, free_port()))
    docker_folder.ok("up")
    code, checks = health(docker_folder)
    assert code == 0, checks
    assert checks["container.engine"]["summary"].startswith("running for")
    assert checks["drift"]["status"] == "OK"
    assert checks["ports"]["summary"] == "1 published ports, all on loopback"

    name = container(docker_folder)
    docker("stop", "-t", "0", name)
    code, checks = health(docker_folder)
    assert (code, "exited, exit code" in checks["container.engine"]["summary"]) == (2, True)
    assert checks["engine"]["blocked_by"] == "container.engine"
    docker("start", name)
    wait_for(lambda: health(docker_folder, "--no-record")[0] == 0, "the container is well again")

    # Killed from inside, again and again: Docker brings it back each time, and its state says "running".
    health(docker_folder)
    for _ in range(3):
        before = restarts(name)
        docker("exec", name, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
        wait_for(functools.partial(more_restarts, name, before), "a restart")
    code, checks = health(docker_folder)
    assert code == 2
    assert "restart loop: 3 restarts" in checks["container.engine"]["summary"]

    docker("rm", "-f", name)
    code, checks = health(docker_folder)
    assert (code, checks["container.engine"]["summary"]) == (2, "does not exist")


def test_a_port_published_on_all_addresses_by_hand(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(settings(standin_image, free_port()))
    docker_folder.ok("up")
    project = f"com.docker.compose.project={docker_folder.name}"
    service = "com.docker.compose.service=intruder"
    port = free_port()
    name = docker("run", "-d", "--label", project, "--label", service, "-p", f"{port}:11434", standin_image)
    try:
        code, checks = health(docker_folder)
        assert code == 2
        assert f"intruder: 0.0.0.0:{port}" in checks["ports"]["summary"]
        assert "intruder: runs, but is not in the rendered stack" in checks["drift"]["summary"]
        # Being open to the network is confirmed by one look: nobody wants to wait for the second.
        assert checks["ports"]["confirmed"]["status"] == "CRITICAL"
    finally:
        docker("rm", "-f", name)
    assert health(docker_folder, "--check", "ports")[0] == 0


def test_a_gpu_that_is_lost_while_the_container_runs(
    docker_folder: Folder, standin_image: str, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    mount = {"source": str(program), "target": "/usr/local/bin/nvidia-smi"}
    document = settings(standin_image, free_port(), volumes=[mount]) | {"gpu": {"mode": "auto"}}
    docker_folder.write(document)
    docker_folder.ok("up")
    code, checks = health(docker_folder)
    assert (code, checks["gpu"]["summary"]) == (0, "1 x Stand-in 24GB")
    assert checks["vram"]["summary"] == "19% of the fullest GPU is free"
    program.write_text(LOST)
    code, checks = health(docker_folder)
    assert code == 2
    assert "no GPU inside the engine: Failed to initialize NVML: Unknown Error" in checks["gpu"]["summary"]
    assert checks["vram"]["blocked_by"] == "gpu"
    assert checks["gpu"]["fix"] == "stackctl run gpu-lost"
    program.write_text(NVIDIA_SMI.replace("61, 0", "93, 2"))
    code, checks = health(docker_folder, "--check", "gpu")
    assert (code, checks["gpu"]["summary"]) == (2, "GPU 0: 2 uncorrected memory errors; GPU 0: 93 C")
    program.write_text(NVIDIA_SMI)
    assert health(docker_folder, "--check", "gpu")[0] == 0

    program.write_text(HANGS)
    code, checks = health(docker_folder, "--check", "gpu")
    assert (code, "does not end within" in checks["gpu"]["summary"]) == (2, True)
    assert "sleep 300" not in docker("top", container(docker_folder)), "a hanging driver leaves no process"
    program.write_text(NVIDIA_SMI)

    # Lost until the container starts anew, which is the usual way to lose it: the remedy brings it back.
    document["health"] = {**document["health"], "remedies": {"enabled": True}}
    docker_folder.write(document)
    (docker_folder.state / "health" / "health.json").unlink()
    docker("exec", container(docker_folder), "touch", "/tmp/lost")
    assert health(docker_folder, "--check", "gpu")[0] == 2
    audit = docker_folder.state / "audit.jsonl"
    assert '"health.remedy"' not in audit.read_text(), "one look confirms nothing"
    assert health(docker_folder, "--check", "gpu")[0] == 2
    (entry,) = [line for line in map(json.loads, audit.read_text().splitlines()) if "remedy" in line]
    assert (entry["remedy"], entry["check"], entry["result"]) == ("gpu-lost", "gpu", "done")
    assert health(docker_folder, "--check", "gpu")[0] == 0


def test_containers_taken_down_on_purpose_are_not_a_failure(
    docker_folder: Folder, standin_image: str
) -> None:
    docker_folder.write(settings(standin_image, free_port()))
    docker_folder.ok("up")
    docker_folder.ok("down")
    code, checks = health(docker_folder)
    assert (code, checks["container.engine"]["status"]) == (3, "UNKNOWN")
    assert "taken down on purpose" in checks["container.engine"]["summary"]
    assert checks["engine"]["blocked_by"] == "container.engine"
    assert checks["runtime"]["status"] == "OK"


def test_a_docker_that_is_away_is_one_failure(docker_folder: Folder, tmp_path: Path) -> None:
    docker_folder.write({"runtime": "docker"})
    docker_folder.environment["DOCKER_HOST"] = f"unix://{tmp_path}/nothing.sock"
    code, checks = health(docker_folder)
    assert code == 2
    critical = [name for name, check in checks.items() if check["status"] == "CRITICAL"]
    assert "runtime" in critical
    assert set(critical) <= {"runtime", "disk"}
    assert checks["engine"]["blocked_by"] == "runtime"

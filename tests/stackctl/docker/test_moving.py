"""A stack that moves from containers to local processes and back: nothing is orphaned, no port clashes, and a
move that fails ends where it began."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.support.stacks import Folder, engine, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def containers(folder: Folder) -> list[str]:
    label = f"label=com.docker.compose.project={folder.name}"
    listed = subprocess.run(
        ["docker", "ps", "-q", "--filter", label], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def on(folder: Folder) -> tuple[str, list[tuple[str, str]], list[str]]:
    status = folder.ok("status", "--json").json
    services = [(one["state"], one["health"]) for one in status["services"]]
    return status["runtime"], services, status["drift"]


RUNS = [("running", "healthy")]


def test_there_and_back(docker_folder: Folder, standin_image: str) -> None:
    port = free_port()
    local: dict[str, Any] = {"runtime": "local", "services": {"engine": {"port": port}}}
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    docker_folder.write(local)
    runtime, services, drift = on(docker_folder)
    assert (runtime, services) == ("docker", RUNS)
    assert drift == ["runs on docker, the stack file says local: stackctl up moves it"]
    assert docker_folder.ok("exec", "engine", "python3", "-c", "print('inside')").out == "inside\n"
    assert docker_folder.ok("plan", "--json").json["services"] == {
        "engine": "create",
        "engine on docker": "remove",
    }
    done = docker_folder.ok("up")
    assert "moving from docker to local: taking down engine there (data is kept)" in done.err
    assert containers(docker_folder) == [] and on(docker_folder) == ("local", RUNS, [])
    # Back, by a container that does not work: it ends on the processes, and they answer.
    docker_folder.write(engine(standin_image, port, "crash"))
    failed = docker_folder.run("up")
    assert failed.code == 4 and "moving from local to docker" in failed.err, failed.err
    assert "going back to generation 2" in failed.err and containers(docker_folder) == []
    docker_folder.write(local)
    assert on(docker_folder) == ("local", RUNS, [])
    # The stack file says docker when it is taken down: the processes go.
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("down")
    docker_folder.write(local)
    assert on(docker_folder)[1] == []

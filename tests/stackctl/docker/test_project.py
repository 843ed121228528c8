"""A compose project of somebody else that has the stack's name: nothing of it is touched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackctl.config import load_with_origins
from stackctl.errors import PreflightError
from stackctl.operations.context import open_stack
from stackctl.upgrade import canary
from tests.support.stacks import Folder, engine, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bring_up_another(folder: Folder, image: str, port: int, name: str = "") -> None:
    """As a person does it, in a folder of the same name."""
    service = {"image": image, "ports": [f"127.0.0.1:{port}:11434"], "volumes": ["kept:/kept"]}
    file = folder.path / "docker-compose.yml"
    file.write_text(yaml.safe_dump({"services": {"engine": service}, "volumes": {"kept": {}}}))
    docker("compose", "-p", name or folder.name, "-f", str(file), "up", "--detach")


def running(name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", name))
    return state


def test_up_and_down_leave_another_project_of_the_same_name_alone(
    docker_folder: Folder, standin_image: str
) -> None:
    port = free_port()
    bring_up_another(docker_folder, standin_image, port)
    stranger = f"{docker_folder.name}-engine-1"
    before = running(stranger)
    assert before["Running"]
    docker_folder.write(engine(standin_image, port))
    for command in (["up"], ["down"], ["down", "--volumes", "--yes"]):
        done = docker_folder.run(*command)
        assert done.code == 3, (command, done.err)
        assert stranger in done.err and "fix: set another name:" in done.err
        assert running(stranger) == before
    assert docker_folder.run("doctor", "--only", "project-name").code == 3
    status = docker_folder.ok("status", "--json").json
    assert status["services"] == []
    assert status["drift"] == [f"{stranger}: not of this stack, but in its project"]

    # With its containers gone, and its volume left, the name is free, and the volume is still not ours.
    docker("rm", "--force", stranger)
    docker_folder.ok("up")
    docker_folder.ok("down", "--volumes", "--yes")
    assert docker("volume", "inspect", "--format", "{{.Name}}", f"{docker_folder.name}_kept")


def test_a_stack_of_the_same_name_that_somebody_else_keeps_is_left_alone(
    docker_folder: Folder, standin_image: str, tmp_path: Path
) -> None:
    """Each user has a state folder, and may call a stack as another does."""
    docker_folder.write(engine(standin_image, free_port()))
    docker_folder.ok("up")
    name = f"{docker_folder.name}-engine-1"
    before = running(name)
    theirs = Folder(
        tmp_path / "theirs", docker_folder.environment | {"XDG_STATE_HOME": str(tmp_path / "other")}
    )
    theirs.path.mkdir()
    theirs.name = docker_folder.name
    theirs.write(engine(standin_image, free_port()))
    for command in (["up"], ["down", "--volumes", "--yes"]):
        done = theirs.run(*command)
        assert done.code == 3, (command, done.err)
        assert f"{name} (of a stack rendered in {docker_folder.state}/" in done.err
    assert theirs.ok("status", "--json").json["services"] == []
    assert running(name) == before
    assert docker_folder.ok("status", "--json").json["drift"] == []


def test_the_second_engine_of_an_upgrade_removes_no_stack_of_its_name(
    docker_folder: Folder, standin_image: str, tmp_path: Path
) -> None:
    whole = docker_folder.name
    docker_folder.name = f"{whole}-canary"
    docker_folder.write(engine(standin_image, free_port()))
    docker_folder.ok("up")
    try:
        file = tmp_path / "beside.yaml"
        file.write_text(yaml.safe_dump({"name": whole, "runtime": "docker"}))
        with pytest.raises(PreflightError, match=f"{whole}-canary-engine-1"):
            canary.remove(open_stack(load_with_origins(str(file), None)))
        assert running(f"{whole}-canary-engine-1")["Running"]
    finally:
        docker_folder.ok("down")
        docker_folder.name = whole

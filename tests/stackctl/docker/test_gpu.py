"""The ways to the GPU on a real Docker Engine. The card is a stand-in: the runtime `nvidia` is runc, and its
hook does nothing (scripts/ci-docker). What compose and the engine make of the file is real; nvidia-smi is a
script."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import refuse
from tests.support.stacks import Folder, engine, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
CARD = "GPU 0: Stand-in (UUID: GPU-0)"


@pytest.fixture(autouse=True)
def runtime() -> None:
    command = ["docker", "info", "--format", "{{json .Runtimes}}"]
    if "nvidia" not in json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout):
        refuse(
            "the Docker Engine has no runtime called nvidia (scripts/ci-docker registers one)",
            "REQUIRE_DOCKER",
        )


def stack(image: str, mode: str, smi: Path | None = None, **gpu: Any) -> dict[str, Any]:
    mounts = [{"source": str(smi), "target": "/usr/local/bin/nvidia-smi"}] if smi else []
    return engine(image, free_port(), volumes=mounts) | {"gpu": {"mode": mode, **gpu}}


def host_config(folder: Folder) -> dict[str, Any]:
    container = folder.ok("status", "--json").json["services"][0]["id"]
    done = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


@pytest.mark.parametrize("mode", ["nvidia", "nvidia-runtime"])
def test_the_engine_gets_the_card_and_it_is_looked_for_inside(
    docker_folder: Folder, standin_image: str, tmp_path: Path, mode: str
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{CARD}'\n")
    smi.chmod(0o755)
    docker_folder.write(stack(standin_image, mode, smi, devices=["0"]))
    assert f"inside the engine: {CARD}" in docker_folder.ok("up").err
    found = host_config(docker_folder)
    if mode == "nvidia":
        (request,) = found["HostConfig"]["DeviceRequests"]
        assert (request["Driver"], request["DeviceIDs"]) == ("nvidia", ["0"])
        assert request["Capabilities"] == [["gpu"]]
    else:
        assert found["HostConfig"]["Runtime"] == "nvidia"
        assert "NVIDIA_VISIBLE_DEVICES=0" in found["Config"]["Env"]


def test_a_container_that_does_not_see_the_card_is_not_up(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(stack(standin_image, "nvidia"))
    done = docker_folder.run("up")
    assert done.code == 4, done.err
    assert "the engine's container does not see the GPU (nvidia)" in done.err
    assert docker_folder.ok("status", "--json").json["services"] == []

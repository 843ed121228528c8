"""Prometheus as a service of a stack of containers: its own image, the rendered files, the hardened rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import need_program
from tests.support.stacks import BASE, Folder, docker_folder, engine, free_port, standin_image, wait_for

__all__ = ["docker_folder", "standin_image"]
pytestmark = [pytest.mark.docker, pytest.mark.peer, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def prometheus_image(standin_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's Prometheus on the local base: the published image cannot be pulled without a network."""
    context, tag = tmp_path_factory.mktemp("prometheus-image"), "stackctl-test-prometheus:1"
    shutil.copy(need_program("prometheus"), context / "prometheus")
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\nLABEL stackctl.test=prometheus\nCOPY prometheus /bin/\n"
        'ENTRYPOINT ["/bin/prometheus"]\n'
    )
    subprocess.run(["docker", "build", "-q", "-t", tag, str(context)], capture_output=True, check=True)
    return tag


def test_it_comes_up_with_its_rules_and_finds_the_engine(
    docker_folder: Folder, standin_image: str, prometheus_image: str
) -> None:
    port = free_port()
    document = engine(standin_image, free_port())
    check = "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/-/ready', timeout=2)"
    document["services"]["prometheus"] = {
        "enabled": True,
        "image": prometheus_image,
        "port": port,
        "interval": "1s",
        "healthcheck": ["python3", "-c", check],
    }
    docker_folder.write(document)
    docker_folder.ok("up")

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    targets = wait_for(lambda: ask("targets")["activeTargets"], "the targets are known")
    assert {target["labels"]["instance"] for target in targets} >= {"engine:11434"}
    groups = {group["name"]: group["rules"] for group in ask("rules")["groups"]}
    assert "llm-recording" in groups and sum(map(len, groups.values())) > 15
    done = docker_folder.run("health", "--no-record", "--check", "prometheus", "--json")
    assert done.code == 0, done.out
    project = docker_folder.name
    name = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=com.docker.compose.project={project}",
         "--filter", "label=com.docker.compose.service=prometheus"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    found = json.loads(subprocess.run(["docker", "inspect", name], capture_output=True, check=True).stdout)[0]
    assert found["HostConfig"]["ReadonlyRootfs"] and found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["Config"]["User"] not in ("", "0", "root")
    data = next(mount["Source"] for mount in found["Mounts"] if mount["Destination"] == "/data")
    assert Path(data, "wal").is_dir(), "the series outlive the container"

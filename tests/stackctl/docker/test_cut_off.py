"""Whenever `up` is interrupted or killed, a second `up` succeeds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stackctl.runtime.docker import sources
from tests.stackctl.docker.phases import PHASES
from tests.support.stacks import BASE, STANDIN, Folder, engine, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]


def test_at_the_start_of_every_phase(docker_folder: Folder, standin_image: str) -> None:
    """Killed, then interrupted at the same place, and the third `up` still succeeds."""
    document = {"name": docker_folder.name, **engine(standin_image, free_port())}
    done = subprocess.run(
        [sys.executable, "-m", "tests.stackctl.docker.phases"],
        cwd=docker_folder.path,
        env=docker_folder.environment | {"PYTHONPATH": str(ROOT)},
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert list(results) == list(PHASES)
    cuts = {phase: one["cut"] for phase, one in results.items()}
    # Ctrl-C stops at the end of a step: after the last one there is nothing left to stop.
    last = ("in force", "tidy up")
    assert cuts == {phase: [-signal.SIGKILL, 0 if phase in last else 130] for phase in PHASES}
    assert {phase: one["said"] for phase, one in results.items() if one["whole"]} == {}
    status = docker_folder.ok("status", "--json").json
    assert [(one["name"], one["health"]) for one in status["services"]] == [("engine", "healthy")]
    assert status["drift"] == [] and status["lock"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_in_the_middle_of_recreating_a_container(
    docker_folder: Folder, standin_image: str, number: signal.Signals
) -> None:
    port = free_port()
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    docker_folder.write(engine(standin_image, port, environment={"CHANGED": "1"}, start_grace="60s"))
    code = docker_folder.cut_off("up", at="Recreate", number=number)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    docker_folder.ok("up")
    status = docker_folder.ok("status", "--json").json
    assert [(one["name"], one["health"]) for one in status["services"]] == [("engine", "healthy")]
    assert status["drift"] == []


BUILDS = """
import sys
from pathlib import Path
from stackctl.cli.main import main
from stackctl.runtime.docker import images
images.ROOT, images.BUILT_HERE = Path(sys.argv[1]), {sys.argv[2]: "proxy"}
main(["up"])
"""
# Slow enough to be cut off in the middle, and it says when that is.
DOCKERFILE = f"""
FROM {BASE}
COPY engine.py /engine.py
RUN echo the long step begins && sleep 1.5
CMD ["python3", "-u", "/engine.py"]
"""
SCRIPT = """#!/bin/sh
cd "$(dirname "$0")/.."
exec docker buildx build --load --progress plain --label "$(cat label)" --tag "$(cat tag)" .
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_in_the_middle_of_a_build(
    docker_folder: Folder, standin_image: str, tmp_path: Path, number: signal.Signals
) -> None:
    root, tag = tmp_path / "checkout", f"{docker_folder.name}-built:1"
    (root / "scripts").mkdir(parents=True)
    for name, text in {
        "Dockerfile": DOCKERFILE,
        # With the name in it: a build of its own, that no other test has in the cache.
        "engine.py": f"# {docker_folder.name}\n{STANDIN.read_text()}",
        "label": f"{sources.LABEL}={sources.digest('proxy')}",
        "tag": tag,
        "scripts/images": SCRIPT,
    }.items():
        (root / name).write_text(text)
    (root / "scripts/images").chmod(0o755)
    docker_folder.write(engine(tag, free_port()))
    program = [sys.executable, "-c", BUILDS, str(root), tag.partition(":")[0]]
    try:
        code = docker_folder.cut_off(at="the long step begins", number=number, program=program)
        assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert not (docker_folder.state / "generations").exists()
        again = subprocess.run(
            program,
            cwd=docker_folder.path,
            env=docker_folder.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert again.returncode == 0, again.stderr
        status = docker_folder.ok("status", "--json").json
        assert [(one["name"], one["health"]) for one in status["services"]] == [("engine", "healthy")]
        third = subprocess.run(
            program,
            cwd=docker_folder.path,
            env=docker_folder.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "building" not in third.stderr
    finally:
        docker_folder.run("down")
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)

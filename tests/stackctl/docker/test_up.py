"""`up` on a real Docker Engine: what works comes up, what does not is refused, shown, and undone."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.docker_api import without_logs
from tests.support.stacks import Folder, engine, free_port, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def health(folder: Folder) -> list[tuple[str, str, str]]:
    services = folder.ok("status", "--json").json["services"]
    return [(one["name"], one["state"], one["health"]) for one in services]


def test_up_again_down_up(docker_folder: Folder, standin_image: str) -> None:
    port = free_port()
    docker_folder.write(engine(standin_image, port))
    assert docker_folder.run("plan", "--detailed-exitcode").code == 7
    first = docker_folder.ok("up", "--json").json
    assert (first["generation"], first["changed"]) == (1, True)
    assert health(docker_folder) == [("engine", "running", "healthy")]
    assert docker_folder.run("plan", "--detailed-exitcode").code == 0
    again = docker_folder.ok("up", "--json").json
    assert (again["generation"], again["changed"]) == (1, False)
    status = docker_folder.ok("status", "--json").json
    assert status["services"][0]["ports"] == [
        {"host_ip": "127.0.0.1", "host_port": port, "container_port": 11434}
    ]
    assert status["services"][0]["memory_bytes"] > 1 << 20
    assert status["drift"] == []
    docker_folder.ok("down")
    assert docker_folder.ok("status", "--json").json["services"] == []
    docker_folder.ok("up")
    docker_folder.ok("restart", "engine")
    assert "stand-in engine" in docker_folder.ok("logs", "engine").out
    assert docker_folder.run("exec", "engine", "sh", "-c", "exit 42").code == 42
    assert docker_folder.ok("exec", "engine", "id", "-u").out.strip() != "0"


@pytest.mark.parametrize(
    ("mode", "says", "shown"),
    [
        ("crash", "ended with exit code 3", "boom: tensor blk.0 is missing"),
        # Healthy at once, and answering: only the time that it lives gives it away.
        ("crash-after-6", "engine ended with exit code 9", "stand-in engine, mode crash-after-6"),
        ("sick", "healthy", "health | "),
    ],
)
def test_a_bad_generation_is_shown_refused_and_undone(
    docker_folder: Folder, standin_image: str, mode: str, says: str, shown: str
) -> None:
    port = free_port()
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    times = {"start_grace": "2s"} if mode == "sick" else {"stable_for": "12s"}
    docker_folder.write(engine(standin_image, port, mode, **times))
    done = docker_folder.run("up")
    assert done.code == 4, done.err
    assert re.search(says, done.err) and shown in done.err
    assert done.err.index(shown) < done.err.index("going back to generation 1")
    assert "generation 1 is healthy again" in done.err
    assert health(docker_folder) == [("engine", "running", "healthy")]
    assert docker_folder.ok("status", "--json").json["generation"] == 1
    entries = docker_folder.ok("history", "--json").json["entries"]
    assert [entry["result"].split(":")[0] for entry in entries] == ["ok", "UnhealthyError"]


def test_the_first_up_that_fails_leaves_nothing_running(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(engine(standin_image, free_port(), "crash"))
    done = docker_folder.run("up")
    assert done.code == 4 and "boom" in done.err
    assert docker_folder.ok("status", "--json").json["services"] == []


def test_a_taken_port_is_refused_before_anything_changes(docker_folder: Folder, standin_image: str) -> None:
    port = free_port()
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    before = docker_folder.ok("status", "--json").json["services"][0]["id"]
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        docker_folder.write(engine(standin_image, held.getsockname()[1]))
        done = docker_folder.run("up")
    assert done.code == 3, done.err
    assert "is taken by" in done.err and "set services.engine.port" in done.err
    assert docker_folder.ok("status", "--json").json["services"][0]["id"] == before


def test_a_port_taken_in_mid_update_is_undone(docker_folder: Folder, standin_image: str) -> None:
    """Compose has removed the old container by then. The port is free for the preflight, and taken when the
    container starts: another container takes it in between."""
    port, other = free_port(), free_port()
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    code = (
        "import socket, sys\n"
        "from stackctl.cli.main import main\n"
        "from stackctl.operations import preflight\n"
        "prepare, held = preflight.prepare, socket.socket()\n"
        "def and_take(*arguments):\n"
        f"    prepare(*arguments); held.bind(('127.0.0.1', {other})); held.listen()\n"
        "preflight.prepare = and_take\n"
        "main(['up'])\n"
    )
    docker_folder.write(engine(standin_image, other))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=docker_folder.path,
        env=docker_folder.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "going back to generation 1" in done.stderr
    assert health(docker_folder) == [("engine", "running", "healthy")]
    with closing(socket.create_connection(("127.0.0.1", port), timeout=5)):
        pass


def test_beyond_its_memory_limit_it_is_killed_and_that_is_said(
    docker_folder: Folder, standin_image: str
) -> None:
    document = engine(standin_image, free_port(), "eat", limits={"memory": "64m"}, start_grace="60s")
    docker_folder.write(document)
    done = docker_folder.run("up")
    assert done.code == 4, done.err
    assert "memory limit of 67108864 bytes" in done.err and "exit code 137" in done.err


LATE = """
import json, subprocess, sys, time
from stackctl.cli.main import main
from stackctl.operations import gate
now = gate.wait_healthy
def late(*arguments, **named):
    deadline, state = time.monotonic() + 60, {}
    while time.monotonic() < deadline and not (state.get("Running") and state["FinishedAt"] > "2"):
        asked = subprocess.run(["docker", "inspect", sys.argv[1]], capture_output=True, check=True)
        state = json.loads(asked.stdout)[0]["State"]
        time.sleep(0.05)
    return now(*arguments, **named)
gate.wait_healthy = late
main(["up"])
"""


def test_how_it_ended_is_known_also_when_it_runs_again(docker_folder: Folder, standin_image: str) -> None:
    """Docker has forgotten the exit code and the memory limit by then; a busy host looks that late."""
    document = engine(standin_image, free_port(), "eat-once", limits={"memory": "64m"})
    docker_folder.write(document)
    done = subprocess.run(
        [sys.executable, "-c", LATE, f"{docker_folder.name}-engine-1"],
        cwd=docker_folder.path,
        env=docker_folder.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    how = "killed at its memory limit of 67108864 bytes (exit code 137) and was started again"
    assert f"engine was {how}" in done.stderr
    assert "restarts 1, last exit code 137" in done.stderr


def test_an_engine_that_tells_no_logs_hides_no_failure_and_no_way_back(
    docker_folder: Folder, standin_image: str, tmp_path: Path
) -> None:
    port = free_port()
    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    docker_folder.write(engine(standin_image, port, "crash"))
    with without_logs(tmp_path / "docker.sock") as address:
        docker_folder.environment["DOCKER_HOST"] = address
        done = docker_folder.run("up")
        del docker_folder.environment["DOCKER_HOST"]
    assert done.code == 4, done.err
    assert "engine ended with exit code 3" in done.err
    assert "(the log of engine is not to be had: the Docker Engine stopped answering:" in done.err
    assert "generation 1 is healthy again" in done.err
    assert health(docker_folder) == [("engine", "running", "healthy")]


def test_drift_is_shown(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(engine(standin_image, free_port()))
    docker_folder.ok("up")
    container = docker_folder.ok("status", "--json").json["services"][0]["id"]
    subprocess.run(["docker", "stop", "-t", "1", container], check=True, capture_output=True)
    assert "drift: engine: exited, should be running" in docker_folder.ok("status").out
    subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    assert "drift: engine: rendered, but there is no container" in docker_folder.ok("status").out
    assert docker_folder.run("plan", "--detailed-exitcode").code == 7
    docker_folder.ok("up")
    assert docker_folder.ok("status", "--json").json["drift"] == []


def test_plan_and_render_know_tags_and_the_lock(docker_folder: Folder, standin_image: str) -> None:
    """A tag that is changed in the stack file is a change also where it stands for the same image."""
    port, first, second = free_port(), f"{docker_folder.name}-a:1", f"{docker_folder.name}-a:2"
    for tag in (first, second):
        subprocess.run(["docker", "tag", standin_image, tag], check=True)
    try:
        docker_folder.write(engine(first, port))
        docker_folder.ok("up")
        assert docker_folder.ok("plan", "--json").json["images"] == []
        docker_folder.write(engine(second, port))
        short = (
            docker_folder.ok("status", "--json").json["services"][0]["image_id"].removeprefix("sha256:")[:12]
        )
        (said,) = docker_folder.ok("plan", "--json").json["images"]
        assert said == f"engine: {first} -> {second} ({short} -> {short})"
        assert docker_folder.run("plan", "--detailed-exitcode").code == 7
        docker_folder.ok("up")
        status = docker_folder.ok("status", "--json").json
        assert (status["generation"], status["drift"]) == (2, [])
        assert docker_folder.run("plan", "--detailed-exitcode").code == 0
        docker_folder.write(engine(f"{docker_folder.name}-a:3", port))
        assert f"image engine: {docker_folder.name}-a:3 is not here, up would pull it" in (
            docker_folder.ok("plan").out
        )

        locked = f"registry.example/a@sha256:{'ab' * 32}"
        (docker_folder.path / "stack.lock").write_text(f"images:\n  {second}: {locked}\n")
        docker_folder.write(engine(second, port))
        assert f"image: {locked}\n" in docker_folder.ok("render").out
    finally:
        subprocess.run(["docker", "image", "rm", first, second], capture_output=True, check=False)


def test_images_that_are_kept_for_going_back_go_with_the_data(
    docker_folder: Folder, standin_image: str
) -> None:
    def kept() -> list[str]:
        repository = f"stackctl-keep/{docker_folder.name}"
        command = ["docker", "image", "ls", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", repository]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    docker_folder.write(engine(standin_image, free_port()))
    docker_folder.ok("up")
    docker_folder.ok("down")
    tag, image = kept()
    assert tag == "0001-engine"
    lock = docker_folder.path / "stack.lock"
    lock.write_text(f"images:\n  {standin_image}: {image}\n")
    docker_folder.ok("down", "--volumes", "--yes")
    assert kept() == [tag, image], "up would not find it again"
    lock.unlink()
    docker_folder.ok("down", "--volumes", "--yes")
    assert kept() == []


@pytest.fixture
def namespace() -> Iterator[tuple[str, str]]:
    """A network namespace with a cable to this host: (name, our address on it)."""
    name = f"t{uuid.uuid4().hex[:8]}"
    subnet = f"10.213.{uuid.uuid4().int % 250}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}h type veth peer name {name}n netns {name}",
        f"ip addr add {subnet}.1/24 dev {name}h",
        f"ip link set {name}h up",
        f"ip -n {name} addr add {subnet}.2/24 dev {name}n",
        f"ip -n {name} link set {name}n up",
        f"ip -n {name} link set lo up",
    ]
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    yield name, f"{subnet}.1"
    subprocess.run(["ip", "link", "del", f"{name}h"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


CONNECT = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3); print('in')"
)


def test_nobody_gets_in_from_another_network_namespace(
    docker_folder: Folder, standin_image: str, namespace: tuple[str, str]
) -> None:
    name, address = namespace
    port = free_port()

    def connects(target: str) -> bool:
        argv = ["ip", "netns", "exec", name, "python3", "-c", CONNECT, target, str(port)]
        return "in" in subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    docker_folder.write(engine(standin_image, port))
    docker_folder.ok("up")
    assert not connects(address)
    assert not connects("127.0.0.1")
    docker_folder.write(engine(standin_image, port) | {"expose": "lan"})
    done = docker_folder.ok("up")
    assert "published on every address" in done.err
    wait_for(
        lambda: connects(address), "with expose: lan it can be reached, so the test can tell the difference"
    )


def test_a_failure_is_kept_in_a_file_that_the_error_names(docker_folder: Folder, standin_image: str) -> None:
    docker_folder.write(engine(standin_image, free_port(), "crash"))
    done = docker_folder.run("up")
    path = docker_folder.state / "last-failure.log"
    assert f"more: {path}" in done.err
    assert "boom: tensor blk.0 is missing" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600

"""Images from a registry: what `up` says of a pull, and that it survives being cut off in its middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.registries import docker_registry
from tests.support.relays import Relay, relay_to
from tests.support.stacks import PROGRAM, Folder, engine, free_port, remove_images, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.peer, pytest.mark.timeout(300)]


def docker(*words: str, check: bool = True, **more: str) -> str:
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=120, check=check, **more
    )  # type: ignore[call-overload]
    return str(done.stdout)


@pytest.fixture
def remote(docker_folder: Folder, standin_image: str, tmp_path: Path) -> Iterator[tuple[Relay, str]]:
    """A registry behind a relay, and the name of an image in it that is not here."""
    padding = tmp_path / "padding"
    padding.write_bytes(os.urandom(3 << 20))
    with docker_registry(tmp_path) as address, relay_to(address) as relay:
        reference = f"{relay.address}/{docker_folder.name}:1"
        # Not built: the builder's cache would keep the layer, and there would be nothing to pull.
        container = docker("create", standin_image)
        docker("cp", str(padding), f"{container}:/padding")
        docker("commit", container, reference)
        docker("rm", container)
        docker("push", "-q", reference)
        away(reference)
        yield relay, reference
        docker_folder.run("down", "--volumes", "--yes")
        remove_images(reference)


def away(reference: str) -> None:
    for tag in docker("image", "ls", "-q", "--filter", f"reference={reference}").split():
        docker("image", "rm", "--force", tag)


def healthy(folder: Folder) -> bool:
    services = folder.ok("status", "--json").json["services"]
    return [(one["name"], one["health"]) for one in services] == [("engine", "healthy")]


def has(said: Path, text: str) -> bool:
    return text in said.read_text()


def begun(folder: Folder, relay: Relay, reference: str) -> tuple[subprocess.Popen[bytes], Path]:
    """`up` in the middle of its pull, and the file with what it says."""
    relay.hold_after = 1 << 20
    said = folder.path / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [PROGRAM, "up"], cwd=folder.path, env=folder.environment, stdout=subprocess.DEVNULL, stderr=file
        )
    wait_for(lambda: f"pulling {reference}" in said.read_text() and relay.held.is_set(), "a pull begins", 60)
    return process, said


def test_a_pull_that_is_cut_off_is_done_again(docker_folder: Folder, remote: tuple[Relay, str]) -> None:
    """Killed, interrupted, and with a registry that hangs up; and then one that is not there at all."""
    relay, reference = remote
    docker_folder.write(engine(reference, free_port()))
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        process, said = begun(docker_folder, relay, reference)
        process.send_signal(number)
        if number == signal.SIGINT:  # the first one lets the step end, and says so
            wait_for(partial(has, said, "once more: now"), "it says how to stop at once")
            process.send_signal(number)
        assert process.wait(60) == code
        assert not (docker_folder.state / "generations").exists()
    # The daemon is still at it, for the one that was killed: the next one joins in.
    process, said = begun(docker_folder, relay, reference)
    relay.let_go()
    relay.hang_up()
    assert process.wait(120) == 0, said.read_text()
    assert re.search(rf"pulling {re.escape(reference)}: (\d+) of \1 layers", said.read_text())
    assert healthy(docker_folder)

    docker_folder.ok("down", "--volumes", "--yes")
    gone = f"127.0.0.1:{free_port()}/{docker_folder.name}:1"
    docker_folder.write(engine(gone, free_port()))
    done = docker_folder.run("up")
    assert done.code == 3 and f"error: image {gone} cannot be had" in done.err, done.err
    assert "connection refused" in done.err and f"fix: docker pull {gone}" in done.err

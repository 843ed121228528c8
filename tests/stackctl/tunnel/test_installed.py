"""A tunnel under its unit: installed over one in the background, taken down, and removed."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.tunnel import logfile
from tests.stackctl.tunnel.conftest import eventually
from tests.stackctl.tunnel.test_background import Laptop, laptop
from tests.support import user_manager
from tests.support.ports import free_port

__all__ = ["laptop"]
pytestmark = pytest.mark.peer
UNIT = "stackctl-tunnel-box.service"


@pytest.fixture
def units(laptop: Laptop) -> Iterator[Path]:
    """Where the units are; `systemctl` of the laptop runs them."""
    folder = laptop.folder / "config/systemd/user"
    programs = laptop.folder / "bin"
    laptop.env["PATH"] = f"{programs}:{laptop.env['PATH']}"
    user_manager.install(programs, folder, laptop.env)
    yield folder
    if (folder / UNIT).exists():
        laptop.stackctl("tunnel", "uninstall", "box")


def test_install_takes_over_and_down_is_down(laptop: Laptop, units: Path) -> None:
    local = free_port()
    laptop.entry(
        forward={"webui": {"remote": laptop.page, "local": local}, "engine": {"remote": laptop.page}}
    )
    laptop.stackctl("tunnel", "up", "box", "webui")
    before = laptop.status()["pid"]
    said = laptop.stackctl("tunnel", "install", "box", "webui").stderr
    assert f"{units / UNIT}: enabled and started, up" in said
    status = laptop.status()
    assert status["well"] and status["pid"] != before
    assert [forward["local_port"] for forward in status["forwards"]] == [local]
    assert " up" in laptop.stackctl("tunnel", "logs", "box").stdout
    # The unit keeps it up ...
    os.kill(status["pid"], signal.SIGKILL)
    eventually(lambda: (now := laptop.status(code=None)) and now["well"] and now["pid"] != status["pid"], 30)
    # ... as it is now, when it is installed again ...
    laptop.stackctl("tunnel", "install", "box")
    assert {forward["service"] for forward in laptop.status()["forwards"]} == {"webui", "engine"}
    # ... and is told when the tunnel is not wanted any more.
    down = laptop.stackctl("tunnel", "down", "box").stderr
    assert "box: down until the next login" in down and "stackctl tunnel uninstall box" in down
    assert laptop.status()["state"] == "stopped"
    assert (laptop.folder / "bin/units" / f"{UNIT}.enabled").exists()
    removed = laptop.stackctl("tunnel", "uninstall", "box").stderr
    assert f"{units / UNIT}: removed" in removed and not (units / UNIT).exists()
    assert not (laptop.folder / "bin/units" / f"{UNIT}.enabled").exists()
    assert "is not installed" in laptop.stackctl("tunnel", "uninstall", "box", code=1).stderr


def test_an_installation_that_cannot_work_says_so(laptop: Laptop, units: Path) -> None:
    laptop.sshd.known_hosts.write_text("")
    said = laptop.stackctl("tunnel", "install", "box", code=1).stderr
    assert f"error: {UNIT} is enabled, but it has ended" in said
    assert f"fix: journalctl --user -u {UNIT}" in said
    assert "the host key of" in laptop.stackctl("tunnel", "logs", "box").stdout


def test_one_that_waits_for_its_host_is_installed(laptop: Laptop, units: Path) -> None:
    laptop.sshd.stop()
    assert "not connected yet: cannot reach 127.0.0.1" in laptop.stackctl("tunnel", "install", "box").stderr


def test_a_second_one_in_front_ends_as_held_and_not_as_refused(laptop: Laptop) -> None:
    """A unit tries again then, and takes over when the first is taken down."""
    local = free_port()
    laptop.entry(forward={"webui": {"remote": laptop.page, "local": local}})
    laptop.stackctl("tunnel", "up", "box")
    held = laptop.stackctl("tunnel", "up", "box", "--foreground", "--persist", code=6)
    assert "is up already" in held.stderr
    laptop.stackctl("tunnel", "down", "box")
    with socket.create_server(("127.0.0.1", local)):
        laptop.stackctl("tunnel", "up", "box", "--foreground", code=3)
        taken = laptop.stackctl("tunnel", "up", "box", "--foreground", "--persist", code=1)
    assert f"local port {local} for webui is taken" in taken.stderr


def test_persist_does_not_need_the_host_to_name_its_services(laptop: Laptop) -> None:
    laptop.entry()
    laptop.sshd.stop()
    laptop.stackctl("tunnel", "up", "box", "--free-ports", code=1)
    laptop.stackctl("tunnel", "up", "box", "comfyui", "--persist", code=1)
    started = laptop.stackctl("tunnel", "up", "box", "--free-ports", "--persist")
    assert "as usual, because cannot reach box" in started.stderr
    status = laptop.status(code=4)
    assert {forward["service"] for forward in status["forwards"]} == {"engine", "gateway", "webui"}
    laptop.sshd.start()
    os.kill(status["pid"], signal.SIGUSR1)
    eventually(lambda: laptop.status(code=4)["state"] == "up", 30)


def test_the_log_is_followed_into_the_file_that_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(logfile, "LONGEST", 400)
    handler = logfile.handler("box")

    def say(number: int) -> None:
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, f"line {number} {'.' * 20}", None, None))

    for number in range(3):
        say(number)
    lines = logfile.read(logfile.path("box"), 2, follow=True)
    got = [next(lines), next(lines)]
    for number in range(3, 40):
        say(number)
        if number % 7 == 0:
            got.append(next(lines))
    while "line 39" not in got[-1]:
        got.append(next(lines))
    handler.close()
    seen = [int(word) for word in "".join(got).split() if word.isdigit()]
    assert seen == list(range(1, 40))

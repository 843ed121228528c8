"""A tunnel over a connection that the user's own ssh shares (ControlMaster)."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stackctl.tunnel.conftest import Lateness, MakeTunnel, Service, echo, eventually
from tests.stackctl.tunnel.test_supervision import answers
from tests.support.sshd import Sshd

pytestmark = pytest.mark.peer
MakeService = Callable[[Callable[..., None]], Service]


class Master:
    """`ssh HOST`, as a person has it open in a terminal."""

    def __init__(self, sshd: Sshd, control: Path) -> None:
        self.control = control
        self.config = sshd.ssh_config("box", "ControlMaster auto", f"ControlPath {control}")
        self.process = subprocess.Popen(
            ["ssh", "-N", "-F", str(self.config), "box"], stderr=subprocess.DEVNULL
        )
        eventually(self.lives, what="the master")

    def lives(self) -> bool:
        argv = ["ssh", "-F", "none", "-o", f"ControlPath={self.control}", "-O", "check", "box"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def master(sshd: Sshd) -> Iterator[Master]:
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:  # short: the path of a socket
        made = Master(sshd, Path(folder) / "box")
        yield made
        made.end()


def test_it_is_joined_where_no_login_of_our_own_would_work(
    sshd: Sshd, master: Master, tunnel: MakeTunnel, service: MakeService
) -> None:
    sshd.authorize()  # as with a one-time password, which was used up
    made = tunnel(service(echo).port, config=master.config)
    assert answers(made)
    assert made.supervisor.progress.transport == "openssh"
    assert made.supervisor.progress.detail == f"shares {master.control}"
    folder = made.supervisor._link.folder  # type: ignore[union-attr]
    assert len(list(folder.iterdir())) == 1
    made.stop()
    assert not folder.exists()
    assert master.lives()  # it is the user's, and stays


def test_a_session_too_many_for_the_server_is_none_for_the_tunnel(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    """MaxSessions counts shells and commands of one connection; forwards are not among them."""
    sshd.stop()
    sshd.options["MaxSessions"] = "1"
    sshd.start()
    with tempfile.TemporaryDirectory(prefix="cm-") as folder, contextlib.ExitStack() as stack:
        master = Master(sshd, Path(folder) / "box")
        stack.callback(master.end)
        over = ["ssh", "-F", "none", "-o", f"ControlPath={master.control}", "box"]
        first = subprocess.Popen([*over, "echo here; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(first.wait)
        stack.callback(first.kill)
        assert first.stdout is not None and first.stdout.readline() == b"here\n"
        # No room for a second; ssh goes on to a connection of its own, of which there is no host "box".
        second = subprocess.run([*over, "true"], capture_output=True, text=True, timeout=30)
        assert second.returncode == 255 and "refused by peer" in second.stderr
        made = tunnel(service(echo).port, config=master.config)
        assert made.supervisor.progress.detail == f"shares {master.control}"
        assert answers(made)
        for pipe in (first.stdin, first.stdout):
            assert pipe is not None
            pipe.close()
        made.stop()


def test_when_it_ends_the_tunnel_makes_a_connection_of_its_own(
    master: Master, tunnel: MakeTunnel, service: MakeService
) -> None:
    made = tunnel(service(echo).port, config=master.config, transport="openssh", interval=2)
    with made.connect() as sock:
        sock.sendall(b"before")
        assert sock.recv(6) == b"before"
        master.end()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    eventually(lambda: made.supervisor.progress.reconnects == 1 and answers(made))
    assert made.supervisor.progress.detail == "ssh -N"
    assert "has ended" in made.supervisor.progress.last_error


def test_a_frozen_server_is_noticed_though_the_master_does_not_look(
    sshd: Sshd, master: Master, tunnel: MakeTunnel, service: MakeService
) -> None:
    made = tunnel(service(echo).port, config=master.config, interval=1)
    assert made.supervisor.progress.detail.startswith("shares ")
    with Lateness() as late:
        # Several rounds of proof pass with nothing else to carry.
        link = made.supervisor._link
        first = link._heard  # type: ignore[union-attr]
        eventually(lambda: link._heard > first + 2, 10)  # type: ignore[union-attr]
        assert made.state == "up"
        sshd.freeze()
        began = link._heard  # type: ignore[union-attr]
        eventually(lambda: made.state != "up", 10)
    assert link._heard - began < 1 + 3 * late.worst  # type: ignore[union-attr]
    assert "has not answered" in made.supervisor.progress.last_error
    sshd.thaw()
    made.wait("up", 30)
    assert answers(made)


def test_a_master_that_does_not_answer_is_passed_over(
    sshd: Sshd, master: Master, tunnel: MakeTunnel, service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackctl.tunnel.master.FIRST_ANSWER", 1.0)

    def mute(sock: object) -> None:
        mine.wait(20)

    mine = threading.Event()
    made = tunnel(service(mute).port, config=master.config)
    assert made.supervisor.progress.detail == "ssh -N"
    mine.set()

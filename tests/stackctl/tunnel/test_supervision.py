"""A tunnel loses its server in every way that servers are lost, and comes back."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.tunnel import socketlink
from stackctl.tunnel.errors import AuthError, ForwardRefused, HostKeyError, TunnelError
from tests.stackctl.tunnel.conftest import Lateness, MakeTunnel, Service, echo, eventually
from tests.support.sshd import Sshd, free_port, keygen

pytestmark = pytest.mark.peer
MakeService = Callable[[Callable[[socket.socket], None]], Service]
TRANSPORTS = pytest.mark.parametrize("transport", ["paramiko", "openssh"])


def answers(tunnel: object) -> bool:
    with contextlib.suppress(OSError), tunnel.connect(5) as sock:  # type: ignore[attr-defined]
        sock.sendall(b"ping")
        return bool(sock.recv(4) == b"ping")
    return False


@TRANSPORTS
def test_a_killed_session_is_replaced(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    made = tunnel(service(echo).port, transport=transport, interval=2)
    port = made.port
    with made.connect() as open_one:
        open_one.sendall(b"before")
        assert open_one.recv(6) == b"before"
        sshd.drop_sessions()
        # Cut, not ended: an end of file would look like a whole answer.
        with pytest.raises(ConnectionResetError):
            while open_one.recv(100):
                pass
    made_again = eventually(lambda: made.supervisor.progress.reconnects == 1 and answers(made))
    assert made_again
    assert made.port == port
    assert made.supervisor.progress.last_error


def test_a_server_that_is_away_is_a_quick_reset_until_it_is_back(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    made = tunnel(service(echo).port, interval=2)
    sshd.stop()
    made.wait("reconnecting")
    for _ in range(5):
        began = time.monotonic()
        with Lateness() as late, pytest.raises(OSError), made.connect() as sock:
            sock.sendall(b"x")
            if sock.recv(1) == b"":
                raise ConnectionResetError
        assert time.monotonic() - began < 1 + 3 * late.worst
    sshd.start()
    made.supervisor.retry_now()
    made.wait("up")
    assert answers(made)


def test_hold_keeps_new_connections_for_the_reconnect(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    made = tunnel(service(echo).port, interval=2, hold=15)
    sshd.stop()
    made.wait("reconnecting")
    with made.connect() as sock:
        sock.sendall(b"early")
        sshd.start()
        assert sock.recv(5) == b"early"


@TRANSPORTS
def test_a_frozen_server_is_noticed_within_three_intervals(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    made = tunnel(service(echo).port, transport=transport, interval=1)
    with made.connect() as sock:
        sock.sendall(b"alive")
        assert sock.recv(5) == b"alive"
        sshd.freeze()
        with Lateness() as late:
            began = time.monotonic()
            eventually(lambda: made.state != "up", 10)
            noticed = time.monotonic() - began
        # Three intervals, a tick of the watch, and what three threads in a row wait for this machine.
        assert noticed < 3.5 + 3 * late.worst, (noticed, late.worst)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    sshd.thaw()
    made.wait("up", 30)
    assert answers(made)


def test_a_frozen_server_is_noticed_in_the_middle_of_an_upload(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    """The sender blocks on full buffers; noticing must not depend on being able to send."""
    made = tunnel(
        service(lambda sock: [None for _ in iter(lambda: sock.recv(1 << 16), b"")]).port, interval=1
    )
    with made.connect() as sock:
        sock.sendall(bytes(1 << 20))
        sshd.freeze()
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(bytes(1 << 20))
        eventually(lambda: made.state != "up", 5)
    sshd.thaw()


def test_an_idle_stream_is_not_reaped(sshd: Sshd, tunnel: MakeTunnel, service: MakeService) -> None:
    made = tunnel(service(echo).port, interval=0.3)
    link = made.supervisor._link
    with made.connect() as sock:
        sock.sendall(b"start")
        assert sock.recv(5) == b"start"
        first = link.session.transport.last_received  # type: ignore[union-attr]
        # Several probes have been answered while the stream said nothing.
        eventually(lambda: link.session.transport.last_received > first + 1.5)  # type: ignore[union-attr]
        sock.sendall(b"still")
        assert sock.recv(5) == b"still"
    assert made.supervisor.progress.reconnects == 0


@TRANSPORTS
def test_a_changed_host_key_stops_it_loudly(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    made = tunnel(service(echo).port, transport=transport, interval=2)
    sshd.stop()
    made.wait("reconnecting")
    for suffix in ("", ".pub"):
        sshd.host_key().with_name(sshd.host_key().name + suffix).unlink()
    keygen(sshd.host_key())
    sshd.start()
    made.supervisor.retry_now()
    eventually(lambda: made.error)
    assert isinstance(made.error[0], HostKeyError)
    assert "CHANGED" in str(made.error[0]).upper()
    assert made.state == "failed"


@TRANSPORTS
def test_a_server_that_forbids_forwards_stops_it(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    sshd.stop()
    sshd.options["AllowTcpForwarding"] = "no"
    sshd.start()
    made = tunnel(service(echo).port, transport=transport, wait=False)
    eventually(lambda: made.error)
    assert isinstance(made.error[0], ForwardRefused), made.error[0]


@TRANSPORTS
def test_a_refused_login_stops_it(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    sshd.authorize()
    made = tunnel(service(echo).port, transport=transport, wait=False)
    eventually(lambda: made.error)
    assert isinstance(made.error[0], AuthError)


def test_an_unreachable_server_ends_a_first_start_but_not_a_persistent_one(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    config = sshd.ssh_config()
    sshd.stop()
    made = tunnel(service(echo).port, config=config, wait=False)
    eventually(lambda: made.error)
    assert isinstance(made.error[0], TunnelError)
    assert "connection refused" in str(made.error[0])
    persistent = tunnel(service(echo).port, config=config, wait=False, persist=True)
    persistent.wait("reconnecting")
    sshd.start()
    persistent.supervisor.retry_now()
    persistent.wait("up")


def test_a_folder_that_cannot_be_made_for_a_while_does_not_end_it(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tunnel(service(echo).port, transport="openssh")

    def full() -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(socketlink, "private_folder", full)
        sshd.drop_sessions()
        eventually(lambda: "no space left on device" in made.supervisor.progress.last_error, what="the word")
        assert not made.error
    made.supervisor.retry_now()
    made.wait("up", 30)
    assert answers(made)


@TRANSPORTS
def test_a_service_that_is_not_there_is_a_reset(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    """Not an end of file, which would look like an empty answer; also to a client that says nothing."""
    made = tunnel(free_port(), transport=transport)
    for said in (b"", b"GET / HTTP/1.0\r\n\r\n", b""):
        # It may come before the client knows that it is connected.
        with pytest.raises(ConnectionResetError), made.connect() as sock:
            sock.sendall(said)
            assert sock.recv(1) is None
    assert "refused" in made.forwarder.last_refusal
    assert made.state == "up"


@TRANSPORTS
def test_an_empty_answer_is_not_a_reset(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    made = tunnel(service(lambda sock: None).port, transport=transport)
    for _ in range(3):
        with made.connect() as sock:
            assert sock.recv(1) == b""
    assert made.forwarder.counters.refused == 0


def test_no_sessions_are_needed(sshd: Sshd, tunnel: MakeTunnel, service: MakeService) -> None:
    """MaxSessions 0 forbids shells and allows forwards; the tunnel asks for nothing else."""
    sshd.stop()
    sshd.options["MaxSessions"] = "0"
    sshd.start()
    assert answers(tunnel(service(echo).port))


def test_the_ssh_child_does_not_outlive_the_tunnel(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService
) -> None:
    made = tunnel(service(echo).port, transport="openssh")
    child = made.supervisor._link._child  # type: ignore[union-attr]
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: made.supervisor.progress.reconnects == 1 and made.state == "up")
    second = made.supervisor._link._child  # type: ignore[union-attr]
    folder = made.supervisor._link.folder  # type: ignore[union-attr]
    made.stop()
    assert second.poll() is not None
    assert not folder.exists()


@TRANSPORTS
def test_the_configuration_is_read_anew_at_each_reconnect(
    sshd: Sshd, service: MakeService, tunnel: MakeTunnel, transport: str
) -> None:
    up = tunnel(service(echo).port, transport=transport)
    sshd.stop()
    sshd.ssh_config().write_text("NoSuchKeyword yes\n")
    progress = up.supervisor.progress
    eventually(lambda: "refuses its configuration" in progress.last_error, what="a word about it")
    assert not up.error
    sshd.port = free_port()
    sshd.write_known_hosts()
    sshd.ssh_config()
    sshd.start()
    up.supervisor.retry_now()
    up.wait("up")
    assert answers(up)

"""The forwarder against a real OpenSSH server: nothing lost, nothing kept, nothing confused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from stackctl.tunnel.forwarder import Forward, Forwarder, PortTaken
from stackctl.tunnel.relay import Relay
from stackctl.tunnel.stream import FIRST_WINDOW
from stackctl.tunnel.windows import SHARE, Windows
from tests.stackctl.tunnel.conftest import (
    MakeTunnel,
    Service,
    answer_after_eof,
    echo,
    eventually,
    link_for,
    read_all,
)
from tests.support.sshd import Sshd, free_port

pytestmark = pytest.mark.peer
MakeService = Callable[[Callable[[socket.socket], None]], Service]
TRANSPORTS = pytest.mark.parametrize("transport", ["paramiko", "openssh"])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@TRANSPORTS
def test_half_close_is_kept(tunnel: MakeTunnel, service: MakeService, transport: str) -> None:
    made = tunnel(service(answer_after_eof).port, transport=transport)
    body = os.urandom(3_000_000)
    with made.connect() as sock:
        sock.sendall(body)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@TRANSPORTS
def test_the_servers_half_close_is_kept(tunnel: MakeTunnel, service: MakeService, transport: str) -> None:
    heard: list[bytes] = []

    def greet_then_listen(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    made = tunnel(service(greet_then_listen).port, transport=transport)
    with made.connect() as sock:
        assert read_all(sock) == b"hello"
        sock.sendall(b"still here")
        sock.shutdown(socket.SHUT_WR)
        eventually(lambda: b"still here" in heard)


def test_a_server_that_speaks_first(tunnel: MakeTunnel, service: MakeService) -> None:
    made = tunnel(service(lambda sock: sock.sendall(b"220 ready\r\n")).port)
    with made.connect() as sock:
        assert read_all(sock) == b"220 ready\r\n"


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes256-ctr"])
def test_both_directions_at_once_stay_in_order(sshd: Sshd, service: MakeService, cipher: str) -> None:
    """64 MiB each way through one connection, in each of the two packet paths."""
    sshd.stop()
    sshd.options["Ciphers"] = cipher
    sshd.start()
    link = link_for(sshd)
    assert link.detail == cipher
    forwarder = Forwarder([Forward("echo", 0, service(echo).port)])
    forwarder.start()
    forwarder.use(link)
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", forwarder.forwards[0].local_port), timeout=60) as sock:

        def write() -> None:
            for number in range(64):
                piece = number.to_bytes(4, "big") + block
                sent.update(piece)
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        while data := sock.recv(1 << 18):
            received.update(data)
        writer.join()
    assert received.hexdigest() == sent.hexdigest()
    forwarder.stop()
    link.close()


def test_a_reader_that_stops_costs_one_small_window(sshd: Sshd, service: MakeService) -> None:
    """Back-pressure reaches the sender: what is in flight is bounded while nobody reads."""
    sent = 0
    blocked = threading.Event()

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        sock.settimeout(1.0)
        try:
            while True:
                sent += sock.send(bytes(65536))
        except TimeoutError:
            blocked.set()

    link = link_for(sshd)
    forwarder = Forwarder([Forward("flood", 0, service(flood).port)])
    forwarder.start()
    forwarder.use(link)
    with socket.create_connection(("127.0.0.1", forwarder.forwards[0].local_port)):
        assert blocked.wait(30)
        relay = next(iter(forwarder._relays))
        # The window starts at 256 KiB; it grows only while the client reads, which this one never does.
        # Kernel buffers on the way may double it twice or thrice before they are full.
        assert relay._queued <= 2 * 1024 * 1024  # type: ignore[attr-defined]
        assert forwarder.bytes_down < 4 * 1024 * 1024
    eventually(lambda: forwarder.active == 0)
    forwarder.stop()
    link.close()


def test_many_readers_that_stop_hold_up_nobody_and_little_memory(sshd: Sshd, service: MakeService) -> None:
    """150 connections whose clients read nothing: each holds a small window at most, and others go on."""
    stalled = 150

    def flood(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.settimeout(60)
        while True:
            sock.send(bytes(65536))

    link = link_for(sshd)
    floods = Forward("flood", 0, service(flood).port)
    forwarder = Forwarder([floods, Forward("echo", 0, service(echo).port)])
    forwarder.start()
    forwarder.use(link)
    flooded, echoed = (("127.0.0.1", forward.local_port) for forward in forwarder.forwards)
    with contextlib.ExitStack() as clients:
        for _ in range(stalled):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(flooded)

        def all_full() -> bool:
            relays = list(forwarder._relays)
            return len(relays) == stalled and all(relay._queued for relay in relays)  # type: ignore[attr-defined]

        eventually(all_full, timeout=30)
        held = [relay._queued for relay in forwarder._relays]  # type: ignore[attr-defined]
        # What the kernel's buffer took at once may have doubled the first window, never more than twice.
        assert max(held) <= 4 * FIRST_WINDOW
        with socket.create_connection(echoed, timeout=20) as sock:
            sock.sendall(b"still here")
            assert sock.recv(20) == b"still here"
    eventually(lambda: forwarder.active == 0)
    forwarder.stop()
    link.close()


def test_readers_that_were_fast_and_stop_share_a_bounded_room(sshd: Sshd, service: MakeService) -> None:
    """A window that has grown cannot be taken back: their sum is what is bounded."""
    readers, room = 12, 4 * 1024 * 1024

    def flood(sock: socket.socket) -> None:
        sock.settimeout(60)
        while True:
            sock.send(bytes(65536))

    link = link_for(sshd)
    forwarder = Forwarder([Forward("flood", 0, service(flood).port)])
    forwarder.windows = Windows(room)
    forwarder.start()
    forwarder.use(link)
    address = ("127.0.0.1", forwarder.forwards[0].local_port)
    with contextlib.ExitStack() as clients:
        for _ in range(readers):
            client = clients.enter_context(socket.create_connection(address, timeout=30))
            left = 4 * 1024 * 1024
            while left > 0:
                left -= len(client.recv(1 << 20))

        def relays() -> list[Relay]:
            return list(forwarder._relays)  # type: ignore[arg-type]

        eventually(lambda: all(relay._queued for relay in relays()), timeout=30)
        assert forwarder.windows.free < room, "they have grown"
        eventually(
            lambda: (
                sum(relay._window for relay in relays())
                == readers * FIRST_WINDOW + room - forwarder.windows.free
            )
        )
        assert sum(relay._queued for relay in relays()) <= readers * FIRST_WINDOW + room
    eventually(lambda: forwarder.active == 0)
    assert forwarder.windows.free == room
    forwarder.stop()
    link.close()


def test_a_large_window_shrinks_where_others_have_no_room(sshd: Sshd, service: MakeService) -> None:
    body = os.urandom(1 << 20)
    twice = body * 2

    def serve(sock: socket.socket) -> None:
        while True:
            sock.sendall(body)

    link = link_for(sshd)
    forwarder = Forwarder([Forward("serve", 0, service(serve).port)])
    forwarder.start()
    forwarder.use(link)
    with socket.create_connection(("127.0.0.1", forwarder.forwards[0].local_port), timeout=30) as sock:
        at = 0

        def read_until(wanted: Callable[[int], bool]) -> None:
            nonlocal at
            deadline = time.monotonic() + 60
            while not any(wanted(relay._window) for relay in forwarder._relays):  # type: ignore[attr-defined]
                assert time.monotonic() < deadline
                data = sock.recv(1 << 20)
                assert data and data == twice[at : at + len(data)]
                at = (at + len(data)) % len(body)

        read_until(lambda window: window >= 4 * SHARE)
        taken = forwarder.windows.free
        assert forwarder.windows.take(taken)  # by others
        read_until(lambda window: window == SHARE)
        forwarder.windows.give(taken)
        read_until(lambda window: window > SHARE)
    eventually(lambda: forwarder.active == 0)
    assert forwarder.windows.free == forwarder.windows.room
    forwarder.stop()
    link.close()


@TRANSPORTS
def test_two_hundred_connections_at_once(tunnel: MakeTunnel, service: MakeService, transport: str) -> None:
    made = tunnel(service(echo).port, transport=transport)
    socks = [made.connect() for _ in range(200)]
    for number, sock in enumerate(socks):
        sock.sendall(f"connection {number}".encode())
    for number, sock in enumerate(socks):
        assert sock.recv(100) == f"connection {number}".encode()
    assert made.forwarder.active == 200
    for sock in socks:
        sock.close()
    eventually(lambda: made.forwarder.active == 0)


@TRANSPORTS
def test_a_thousand_connections_leave_nothing(
    tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    made = tunnel(service(echo).port, transport=transport)

    def cycle(count: int) -> None:
        for number in range(count):
            with made.connect() as sock:
                if number % 3 == 0:
                    continue  # gone before a word was said
                sock.sendall(b"ping")
                assert sock.recv(4) == b"ping"
        eventually(lambda: made.forwarder.active == 0)

    cycle(20)
    before = open_files()
    cycle(1000)
    eventually(lambda: open_files() <= before + 2, what=f"{open_files()} open files, {before} before")
    link = made.supervisor._link
    if transport == "paramiko":
        transport_object = link.session.transport  # type: ignore[union-attr]
        eventually(lambda: not transport_object.streams)
        assert not transport_object.channels_seen
        assert len(transport_object._channels) == 0


def test_an_unreachable_service_is_a_reset_and_counted(tunnel: MakeTunnel) -> None:
    made = tunnel(free_port())
    assert "nothing answers" in made.supervisor.progress.notes[0]
    # The reset may be there before connect() has returned.
    with pytest.raises(ConnectionResetError), made.connect() as sock:
        sock.recv(1)
    assert made.forwarder.counters.refused == 1


def test_a_client_that_resets_ends_the_far_side(tunnel: MakeTunnel, service: MakeService) -> None:
    ended = threading.Event()

    def wait_for_end(sock: socket.socket) -> None:
        try:
            while sock.recv(100):
                pass
        finally:
            ended.set()

    made = tunnel(service(wait_for_end).port)
    sock = made.connect()
    sock.sendall(b"x")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    assert ended.wait(10)
    eventually(lambda: made.forwarder.active == 0)


def test_listens_on_loopback_alone_and_says_who_has_a_port() -> None:
    first = Forwarder([Forward("a", 0, 1)])
    port = first.forwards[0].local_port
    assert first._listeners[0].sock.getsockname()[0] == "127.0.0.1"
    with pytest.raises(PortTaken, match=f"127.0.0.1:{port}: address already in use"):
        Forwarder([Forward("b", 0, 1), Forward("a", port, 1)])
    first.start()
    first.stop()
    Forwarder([Forward("a", port, 1)])


def test_tokens_arrive_one_by_one(tunnel: MakeTunnel, service: MakeService) -> None:
    """A streamed answer is not gathered into larger pieces on its way."""
    next_token = threading.Semaphore(0)

    def stream(sock: socket.socket) -> None:
        if not sock.recv(100):
            return  # the tunnel's own look whether the service is there
        for number in range(20):
            next_token.acquire()
            sock.sendall(f"data: {number}\n\n".encode())

    made = tunnel(service(stream).port)
    with made.connect() as sock:
        sock.sendall(b"GET /")
        for number in range(20):
            next_token.release()
            assert sock.recv(1000) == f"data: {number}\n\n".encode()

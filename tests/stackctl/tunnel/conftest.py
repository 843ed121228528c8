"""A real OpenSSH server, real services behind it, and tunnels through it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from stackctl.tunnel.connect import Connector
from stackctl.tunnel.destination import parse
from stackctl.tunnel.forwarder import Forward, Forwarder
from stackctl.tunnel.link import ParamikoLink
from stackctl.tunnel.supervisor import Supervisor, TunnelSpec
from tests.support.sshd import Sshd

T = TypeVar("T")


def eventually(ask: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """The first true answer; fails when none comes in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout} s: {what or ask}")


class Lateness:
    """How late this machine wakes a thread at worst, measured while a test times something else.

    A limit of time is a promise of the program on a machine that runs it; what a machine that is busy with
    other tests adds is measured beside it instead of being guessed.
    """

    STEP = 0.02

    def __init__(self) -> None:
        self.worst = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._done.wait(self.STEP):
            now = time.monotonic()
            self.worst, before = max(self.worst, now - before - self.STEP), now

    def __enter__(self) -> Lateness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


class Service:
    """A TCP server with a handler per connection, in threads of this process."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self.listener.getsockname()[1])
        self.handle = handle
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self.handle(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # a plain close would not end accept()
        self.listener.close()


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def answer_after_eof(sock: socket.socket) -> None:
    """Reads to the end, then answers with the size and hash: only a kept half-close can carry that."""
    body = read_all(sock)
    sock.sendall(f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode())


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd").start()
    yield server
    server.thaw()
    server.stop()


@pytest.fixture
def service() -> Iterator[Callable[[Callable[[socket.socket], None]], Service]]:
    made: list[Service] = []

    def make(handle: Callable[[socket.socket], None]) -> Service:
        made.append(Service(handle))
        return made[-1]

    yield make
    for each in made:
        each.close()


@dataclass
class Tunnel:
    """A supervised tunnel in this process."""

    supervisor: Supervisor
    forwarder: Forwarder
    thread: threading.Thread
    error: list[BaseException]

    @property
    def port(self) -> int:
        return self.forwarder.forwards[0].local_port

    @property
    def state(self) -> str:
        return self.supervisor.progress.state

    def connect(self, timeout: float = 20.0) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def wait(self, state: str, timeout: float = 15.0) -> None:
        eventually(lambda: self.state == state or self.error, timeout, f"state {state}, it is {self.state}")
        assert self.state == state, self.error

    def stop(self) -> None:
        self.supervisor.stop()
        self.thread.join(15)
        assert not self.thread.is_alive()
        self.forwarder.stop()


MakeTunnel = Callable[..., Tunnel]


@pytest.fixture
def tunnel(sshd: Sshd) -> Iterator[MakeTunnel]:
    made: list[Tunnel] = []

    def make(
        port: int,
        *,
        config: Path | None = None,
        alias: str = "box",
        transport: str = "auto",
        interval: float = 15.0,
        hold: float = 0.0,
        persist: bool = False,
        wait: bool = True,
    ) -> Tunnel:
        forwards = (Forward("service", 0, port),)
        spec = TunnelSpec(
            name="test",
            destination=parse(alias),
            forwards=forwards,
            config_file=config or sshd.ssh_config(),
            transport=transport,
            interval=interval,
            hold=hold,
            persist=persist,
        )
        forwarder = Forwarder(forwards, hold=hold)
        supervisor = Supervisor(spec, forwarder, None)
        errors: list[BaseException] = []

        def run() -> None:
            try:
                supervisor.run()
            except BaseException as error:  # noqa: BLE001 - shown to the test
                errors.append(error)

        forwarder.start()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        made.append(Tunnel(supervisor, forwarder, thread, errors))
        if wait:
            made[-1].wait("up")
        return made[-1]

    yield make
    for each in made:
        each.stop()


def link_for(sshd: Sshd, interval: float = 15.0) -> ParamikoLink:
    return ParamikoLink(Connector(parse("box"), sshd.ssh_config(), None).connect(), interval)

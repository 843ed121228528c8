"""Listens on loopback ports and relays each connection over whatever link is up at the time.

The listeners are bound before anything is claimed and stay bound while SSH is away: a connection made then
is reset at once, or held for a few seconds if the tunnel was told to (`hold`), so that a client neither
hangs nor sees a port that comes and goes.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stackctl.errors import StackctlError
from stackctl.tunnel.contract import AnyRelay, Tally, reset
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.windows import Windows

OPEN_TIMEOUT = 10.0
MAX_CONNECTIONS = 2000
BACKLOG = 512
Address = tuple[str, int]


@dataclass(frozen=True)
class Forward:
    """`127.0.0.1:local_port` here becomes `remote_host:remote_port` as seen from the server."""

    service: str
    local_port: int
    remote_port: int
    remote_host: str = "127.0.0.1"
    local_host: str = "127.0.0.1"


class PortTaken(StackctlError):
    """A local port of a forward is in use."""

    def __init__(self, forward: Forward, reason: str) -> None:
        super().__init__(f"cannot listen on {forward.local_host}:{forward.local_port}: {reason}")
        self.forward = forward


class Link(Protocol):
    """A live way to the server."""

    def open(self, loop: Loop, forward: Forward, sock: socket.socket, origin: Address, tally: Tally) -> None:
        """Start a relay between `sock` and the forward's far end; raises when the link has ended."""
        ...


@dataclass
class Counters:
    connections: int = 0
    refused: int = 0
    reset: int = 0


class _Listener:
    def __init__(self, forwarder: Forwarder, forward: Forward, sock: socket.socket) -> None:
        self.forwarder, self.forward, self.sock = forwarder, forward, sock
        self.watched = False

    def ready(self, events: int) -> None:
        self.forwarder.accept(self)


class Forwarder:
    def __init__(self, forwards: Sequence[Forward], *, hold: float = 0.0) -> None:
        self.hold = hold
        self.counters = Counters()
        self.bytes_up = self.bytes_down = 0
        self.windows = Windows()
        self.last_refusal = ""
        self.loop = Loop("forwarder")
        self._link: Link | None = None
        self._relays: set[AnyRelay] = set()
        self._held: list[tuple[float, Forward, socket.socket, Address]] = []
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []
        try:
            for forward in forwards:
                sock = _bind(forward)
                bound = Forward(
                    forward.service,
                    sock.getsockname()[1],
                    forward.remote_port,
                    forward.remote_host,
                    forward.local_host,
                )
                self._listeners.append(_Listener(self, bound, sock))
        except BaseException:
            for listener in self._listeners:
                listener.sock.close()
            raise
        self.loop.every_tick(self._tick)

    @property
    def forwards(self) -> list[Forward]:
        return [listener.forward for listener in self._listeners]

    @property
    def active(self) -> int:
        return len(self._relays) + len(self._held)

    def start(self) -> None:
        for listener in self._listeners:
            self._watch(listener, True)
        self.loop.start()

    def use(self, link: Link | None) -> None:
        """The link that new connections take from now on; None while there is none."""

        def connect_held() -> None:
            held, self._held = self._held, []
            for _, forward, sock, origin in held:
                self._connect(forward, sock, origin)

        self._link = link  # at once: whoever was told that the tunnel is up may connect now
        if link is not None:
            self.loop.call(connect_held)

    def stop(self) -> None:
        def close() -> None:
            for listener in self._listeners:
                self._watch(listener, False)
                listener.sock.close()
            for relay in list(self._relays):
                relay.abandon()
            for _, _, sock, _ in self._held:
                reset(sock)

        self.loop.call(close)
        self.loop.stop()

    # --- loop's thread ---

    def _watch(self, listener: _Listener, on: bool) -> None:
        if listener.watched != on:
            read = selectors.EVENT_READ
            self.loop.interest(listener.sock, 0 if on else read, read if on else 0, listener)
            listener.watched = on

    def accept(self, listener: _Listener) -> None:
        """One connection for each event: the loop comes back while more of them wait."""
        if self.active >= MAX_CONNECTIONS:
            self._watch(listener, False)  # the kernel's backlog waits until one ends (_tick)
            return
        try:
            sock, origin = listener.sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._watch(listener, False)
            return  # or else this client went away before it was accepted
        sock.setblocking(False)
        self.counters.connections += 1
        self._connect(listener.forward, sock, origin[:2])

    def _connect(self, forward: Forward, sock: socket.socket, origin: Address) -> None:
        link = self._link
        if link is None and self.hold > 0:
            self._held.append((time.monotonic() + self.hold, forward, sock, origin))
            return
        try:
            if link is None:
                raise ConnectionError("the tunnel is down")
            link.open(self.loop, forward, sock, origin, self)
        except Exception:  # noqa: BLE001 - whatever a dying session raises: this connection cannot be made
            self.counters.reset += 1
            reset(sock)

    def _tick(self, now: float) -> None:
        for listener in self._listeners:
            if listener.sock.fileno() >= 0 and self.active < MAX_CONNECTIONS:
                self._watch(listener, True)
        expired = [entry for entry in self._held if entry[0] <= now]
        if expired:
            self._held = [entry for entry in self._held if entry[0] > now]
            for _, _, sock, _ in expired:
                self.counters.reset += 1
                reset(sock)
        for relay in list(self._relays):
            if not relay.is_open and now - relay.started > OPEN_TIMEOUT:
                self.last_refusal = f"no answer to a connection request within {OPEN_TIMEOUT:.0f} s"
                self.counters.reset += 1
                relay.abandon()

    # --- from relays, in either thread ---

    def relay_started(self, relay: AnyRelay) -> None:
        with self._lock:
            self._relays.add(relay)

    def relay_opened(self, relay: AnyRelay) -> None:
        pass

    def relay_ended(self, relay: AnyRelay) -> None:
        with self._lock:
            self._relays.discard(relay)

    def relay_refused(self, relay: AnyRelay, code: int, reason: str) -> None:
        self.counters.refused += 1
        self.last_refusal = reason or f"refused with code {code}"


def _bind(forward: Forward) -> socket.socket:
    family = socket.AF_INET6 if ":" in forward.local_host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted. The small buffer shows soon when a client does not read, so that its
        # window stops growing (relay.py).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        sock.bind((forward.local_host, forward.local_port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortTaken(forward, (error.strerror or str(error)).lower()) from None
    return sock

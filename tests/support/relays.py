"""A relay in front of a server on loopback that holds an answer back in its middle, or hangs up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Relay:
    target: tuple[str, int]
    address: str = ""
    hold_after: int | None = None
    """Bytes of each connection's answer that are passed on before it is held back."""
    held: threading.Event = field(default_factory=threading.Event)
    """Set when an answer is held back."""
    _open: set[socket.socket] = field(default_factory=set)
    _go: threading.Condition = field(default_factory=threading.Condition)

    def let_go(self) -> None:
        with self._go:
            self.hold_after = None
            self._go.notify_all()
        self.held.clear()

    def hang_up(self) -> None:
        """On everybody: what a server that is restarted does."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self.target) as server:
            self._open |= {client, server}
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
            while data := client.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        self._open.discard(client)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                with self._go:
                    while self.hold_after is not None and passed > self.hold_after:
                        self.held.set()
                        self._go.wait()
                client.sendall(data)
                passed += len(data)
            client.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relay_to(address: str) -> Iterator[Relay]:
    host, _, port = address.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay((host, int(port)), f"127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=relay.serve, args=(listener,), daemon=True).start()
        try:
            yield relay
        finally:
            relay.let_go()
            relay.hang_up()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

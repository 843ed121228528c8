"""A TCP proxy on loopback that counts what comes back through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

SEND_BUFFER = 32 * 1024  # what waits here is counted and may never arrive: so little waits here


class CountingProxy:
    """`fetched` is the number of bytes that the far side sent and that were handed on."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self.target = (host, int(port))
        self.fetched = 0
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_until(self, count: int, timeout: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.fetched >= count, timeout)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                server = socket.create_connection(self.target)
                threading.Thread(target=self._move, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._move, args=(server, client, True), daemon=True).start()

    def _move(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        buffer = memoryview(bytearray(1 << 16))
        with contextlib.suppress(OSError):
            while size := source.recv_into(buffer):
                sink.sendall(buffer[:size])
                if counted:
                    with self.changed:
                        self.fetched += size
                        self.changed.notify_all()
        # Either side's end ends both: a killed client must not leave a registry that goes on sending.
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        self.listener.close()


@contextlib.contextmanager
def counting(target: str) -> Iterator[CountingProxy]:
    proxy = CountingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()

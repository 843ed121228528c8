"""An HTTP proxy on loopback: CONNECT for https, whole addresses for http. Names may lead to local ports."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping


class Proxy:
    """`asked` lists what it was asked for: `CONNECT host:port` or `GET http://...`."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := client.recv(65536)):
                    return
                head += piece
            line = head.split(b"\r\n", 1)[0].decode()
            method, target, _ = line.split(" ")
            self.asked.append(f"{method} {target}")
            if method == "CONNECT":
                with self._connect(target) as server:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _relay(client, server)
            else:
                host, _, path = target.removeprefix("http://").partition("/")
                with self._connect(host) as server:
                    server.sendall(head.replace(target.encode(), b"/" + path.encode(), 1))
                    _relay(client, server)

    def _connect(self, target: str) -> socket.socket:
        host, port = self.names.get(target, target).rsplit(":", 1)
        return socket.create_connection((host, int(port)))

    def close(self) -> None:
        self.listener.close()


def _relay(one: socket.socket, other: socket.socket) -> None:
    def move(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=move, args=(other, one), daemon=True)
    back.start()
    move(one, other)
    back.join(10)


@contextlib.contextmanager
def proxying(names: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    proxy = Proxy(names or {})
    try:
        yield proxy
    finally:
        proxy.close()

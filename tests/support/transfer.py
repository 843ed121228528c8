"""A service that sends and takes known bytes, as a program: for use in another namespace or process.

One byte says what to do: `D` and an 8-byte size sends that much; `U` takes all until the end of file and
answers with the SHA-256; `S` sends one numbered line per byte that it receives; `P` echoes.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
from collections.abc import Iterator

BLOCK = bytes(range(256)) * 1024


def blocks(size: int) -> Iterator[bytes]:
    """The bytes of a transfer: numbered blocks, so that a lost or repeated one changes the hash."""
    number = 0
    while size > 0:
        piece = number.to_bytes(8, "big") + BLOCK
        yield piece[:size]
        size -= len(piece)
        number += 1


def expected(size: int) -> str:
    digest = hashlib.sha256()
    for piece in blocks(size):
        digest.update(piece)
    return digest.hexdigest()


def serve(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        what = sock.recv(1)
        if what == b"D":
            for piece in blocks(int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")):
                sock.sendall(piece)
        elif what == b"U":
            digest = hashlib.sha256()
            while data := sock.recv(1 << 18):
                digest.update(data)
            sock.sendall(digest.hexdigest().encode())
        elif what == b"S":
            number = 0
            while data := sock.recv(100):
                for _ in data:
                    sock.sendall(f"data: {number}\n\n".encode())
                    number += 1
        elif what == b"P":
            while data := sock.recv(65536):
                sock.sendall(data)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())

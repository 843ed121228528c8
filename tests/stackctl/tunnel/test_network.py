"""The network goes away and comes back, between this machine and a server in a namespace of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stackctl.tunnel.conftest import MakeTunnel, eventually, read_all
from tests.stackctl.tunnel.test_forwarding import TRANSPORTS
from tests.support import netns, transfer
from tests.support.sshd import Sshd

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not netns.available(), reason="no network namespaces here: needs root and iptables"),
]
GIGABYTE = 1_000_000_000


@pytest.fixture
def namespace() -> Iterator[netns.Namespace]:
    made = netns.Namespace()
    yield made
    made.close()


@pytest.fixture
def sshd(tmp_path: Path, namespace: netns.Namespace) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd", host=namespace.far, port=2222, netns=namespace.name).start()
    yield server
    server.stop()


@pytest.fixture
def transfers(namespace: netns.Namespace) -> Iterator[int]:
    argv = namespace.argv(sys.executable, transfer.__file__)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def resident() -> int:
    """Bytes of memory in use by this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def cut_for(namespace: netns.Namespace, seconds: float) -> Iterator[None]:
    """Cut now, mend after a while, in the background."""
    namespace.cut()
    timer = threading.Timer(seconds, namespace.mend)
    timer.start()
    yield
    timer.join()


@TRANSPORTS
def test_a_short_cut_in_a_gigabyte_download_is_survived(
    tunnel: MakeTunnel, transfers: int, namespace: netns.Namespace, transport: str
) -> None:
    made = tunnel(transfers, transport=transport)
    before, files = resident(), len(os.listdir("/proc/self/fd"))
    digest, received, highest = hashlib.sha256(), 0, 0
    with contextlib.ExitStack() as stack, made.connect(60) as sock:
        sock.sendall(b"D" + GIGABYTE.to_bytes(8, "big"))
        cut = False
        while data := sock.recv(1 << 18):
            digest.update(data)
            received += len(data)
            highest = max(highest, resident())
            if not cut and received > GIGABYTE // 3:
                cut = True
                stack.enter_context(cut_for(namespace, 1.0))
    assert received == GIGABYTE
    assert digest.hexdigest() == transfer.expected(GIGABYTE)
    assert made.supervisor.progress.reconnects == 0
    assert highest - before < 64 * 1024 * 1024, f"{(highest - before) >> 20} MiB more than at the start"
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)


@TRANSPORTS
def test_a_short_cut_in_a_gigabyte_upload_is_survived(
    tunnel: MakeTunnel, transfers: int, namespace: netns.Namespace, transport: str
) -> None:
    made = tunnel(transfers, transport=transport)
    before, sent, highest = resident(), 0, 0
    with contextlib.ExitStack() as stack, made.connect(60) as sock:
        sock.sendall(b"U")
        cut = False
        for piece in transfer.blocks(GIGABYTE):
            sock.sendall(piece)
            sent += len(piece)
            highest = max(highest, resident())
            if not cut and sent > GIGABYTE // 3:
                cut = True
                stack.enter_context(cut_for(namespace, 1.0))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).decode() == transfer.expected(GIGABYTE)
    assert made.supervisor.progress.reconnects == 0
    assert highest - before < 64 * 1024 * 1024, f"{(highest - before) >> 20} MiB more than at the start"


@TRANSPORTS
def test_a_streamed_answer_goes_on_after_a_short_cut(
    tunnel: MakeTunnel, transfers: int, namespace: netns.Namespace, transport: str
) -> None:
    made = tunnel(transfers, transport=transport)
    with made.connect(60) as sock:
        sock.sendall(b"S")
        for number in range(10):
            if number == 5:
                namespace.cut()
                threading.Timer(0.5, namespace.mend).start()
            sock.sendall(b".")
            assert sock.recv(100) == f"data: {number}\n\n".encode()


@TRANSPORTS
def test_a_long_cut_resets_and_the_tunnel_returns_by_itself(
    tunnel: MakeTunnel, transfers: int, namespace: netns.Namespace, transport: str
) -> None:
    made = tunnel(transfers, interval=0.5, transport=transport)
    with made.connect(60) as sock:
        sock.sendall(b"S.")
        assert sock.recv(100) == b"data: 0\n\n"
        namespace.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    said = {"paramiko": "has not answered", "openssh": "not responding"}[transport]
    assert said in eventually(lambda: made.supervisor.progress.last_error)
    namespace.mend()
    made.supervisor.retry_now()
    made.wait("up", 40)
    with made.connect() as sock:
        sock.sendall(b"S.")
        assert sock.recv(100) == b"data: 0\n\n"

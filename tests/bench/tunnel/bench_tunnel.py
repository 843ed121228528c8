"""`stackctl tunnel` against OpenSSH's own -L, over the same server to the same service, interleaved.

Client, service, server and both tunnels are processes of their own, as they are for a user: a tunnel that
shared its interpreter with the client would wait for it at each step.

Throughput is a ratio to OpenSSH's. Latency is what a tunnel adds to the direct connection, as a ratio to
what OpenSSH adds: for a request on an open connection, and for one that makes its connection first; the
median and the slowest twentieth (p95), each the median of the rounds.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import transfer
from tests.support.sshd import Sshd, free_port

SIZE = 256 << 20
ROUNDS = 5


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def download(port: int) -> float:
    """MB/s."""
    buffer, received = bytearray(1 << 18), 0
    with connect(port) as sock:
        began = time.perf_counter()
        sock.sendall(b"D" + SIZE.to_bytes(8, "big"))
        while size := sock.recv_into(buffer):
            received += size
        assert received == SIZE
        return SIZE / (time.perf_counter() - began) / 1e6


def upload(port: int) -> float:
    """MB/s, of which the far side's hashing is a part for everyone."""
    with connect(port) as sock:
        began = time.perf_counter()
        sock.sendall(b"U")
        for piece in transfer.blocks(SIZE):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        assert len(sock.recv(64, socket.MSG_WAITALL)) == 64
        return SIZE / (time.perf_counter() - began) / 1e6


def request(port: int) -> tuple[float, float]:
    """Microseconds of a 200-byte request on an open connection: median, p95."""
    times = []
    with connect(port) as sock:
        sock.sendall(b"P")
        for _ in range(500):
            began = time.perf_counter()
            sock.sendall(b"x" * 200)
            sock.recv(4096)
            times.append(time.perf_counter() - began)
    return middle_and_slow(times)


def connection(port: int) -> tuple[float, float]:
    """Microseconds of connecting, one request, one answer: median, p95."""
    times = []
    for _ in range(100):
        began = time.perf_counter()
        with connect(port) as sock:
            sock.sendall(b"Px")
            sock.recv(10)
            times.append(time.perf_counter() - began)
    return middle_and_slow(times)


def middle_and_slow(times: list[float]) -> tuple[float, float]:
    parts = statistics.quantiles(times, n=20)
    return parts[9] * 1e6, parts[18] * 1e6


def throughput(name: str, work: Callable[[int], float], ports: tuple[int, int, int]) -> None:
    show(name, [tuple(work(port) for port in ports) for _ in range(ROUNDS)], added=False)


def latency(name: str, work: Callable[[int], tuple[float, float]], ports: tuple[int, int, int]) -> None:
    rounds = [tuple(work(port) for port in ports) for _ in range(3 * ROUNDS)]
    for number, which in enumerate(("", ", p95")):
        show(name + which, [tuple(each[number] for each in row) for row in rounds], added=True)


def show(name: str, rounds: list[tuple[float, ...]], added: bool) -> None:
    direct, peer, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = (ours - direct) / (peer - direct) if added else ours / peer
    unit = "us" if added else "MB/s"
    figures = f"direct {direct:8.0f}  openssh {peer:8.0f}  stackctl {ours:8.0f} {unit:<5}"
    print(f"{name:<33} {figures} ratio {ratio:.2f}", flush=True)


def tunnel(folder: Path, ssh_config: Path, remote: int) -> tuple[subprocess.Popen[str], int]:
    """The program itself, as `stackctl tunnel up --foreground` runs it; the port that it listens on."""
    home = folder / "config" / "stackctl"
    home.mkdir(parents=True)
    entry = {"ssh_config": str(ssh_config), "forward": {"service": {"local": 0, "remote": remote}}}
    (home / "hosts.yaml").write_text(json.dumps({"box": entry}))
    env = {**os.environ, "XDG_CONFIG_HOME": str(home.parent), "XDG_STATE_HOME": str(folder / "state")}
    argv = [str(Path(sys.executable).with_name("stackctl")), "tunnel", "up", "box", "--foreground"]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rpartition(":")[2])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Sshd(Path(folder) / "sshd").start()
        argv = [sys.executable, transfer.__file__]
        service = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        direct, peer = int(service.stdout.readline()), free_port()
        forward = f"127.0.0.1:{peer}:127.0.0.1:{direct}"
        openssh = subprocess.Popen(["ssh", "-N", "-F", str(server.ssh_config()), "-L", forward, "box"])
        ours, port = tunnel(Path(folder), server.ssh_config(), direct)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", peer)) == 0:
                    break
        ports = (direct, peer, port)
        throughput("download", download, ports)
        throughput("upload", upload, ports)
        latency("request added", request, ports)
        latency("connection + request added", connection, ports)
        ours.terminate()
        ours.wait()
        openssh.terminate()
        openssh.wait()
        service.kill()
        service.wait()
        server.stop()


if __name__ == "__main__":
    main()

"""Forwards that an ssh keeps, each of which ends on a socket in a private folder of ours.

The loopback ports stay ours, so they keep their promises (bound at all times, a quick reset while SSH is
away, counted bytes), whichever ssh it is: a child of the tunnel (openssh.py) or one that the user has opened
(master.py).
"""

from __future__ import annotations

import errno
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from stackctl.tunnel.contract import Tally
from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.forwarder import Address, Forward
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.sockets import private_folder
from stackctl.tunnel.splice import Splice

_PF_EXITING = 0x4


class SocketLink:
    transport_name = "openssh"
    detail = ""

    def __init__(self, forwards: list[Forward]) -> None:
        self.folder = private_folder()
        self.sockets = {forward: self.folder / str(number) for number, forward in enumerate(forwards)}

    def ask(self, control: Path, what: str) -> None:
        """Ask a connected ssh to take (`forward`) or give up (`cancel`) the forwards."""
        pairs = [(path, forward) for forward, path in self.sockets.items()]
        try:
            done = subprocess.run(
                control_command(control, what, pairs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            raise TunnelError("ssh did not take the forwards in 10 s") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise TunnelError(f"ssh did not take the forwards: {said[-1]}")

    def open(self, loop: Loop, forward: Forward, sock: socket.socket, origin: Address, tally: Tally) -> None:
        far = self.connect(forward)
        far.setblocking(False)
        Splice(loop, sock, far, tally, self)

    def connect(self, forward: Forward) -> socket.socket:
        path = next(p for f, p in self.sockets.items() if _same_target(f, forward))
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(str(path))
        except OSError:
            far.close()
            raise
        return far

    def lives(self) -> bool:
        """False once ssh ends: whoever has seen a socket end learns here whether that was the peer's wish or
        ssh's."""
        raise NotImplementedError

    def refusal(self, since: float) -> str | None:
        """Why the server could not make a connection that was asked for after `since`, if ssh says so."""
        return None

    def remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def control_command(control: Path, what: str, forwards: list[tuple[Path, Forward]]) -> list[str]:
    """No configuration is read, for none is needed."""
    argv = ["ssh", "-F", "none", "-o", f"ControlPath={str(control).replace('%', '%%')}", "-O", what]
    for path, forward in forwards:
        host = f"[{forward.remote_host}]" if ":" in forward.remote_host else forward.remote_host
        argv += ["-L", f"{path}:{host}:{forward.remote_port}"]
    return [*argv, "--", "connected"]


def listens(path: Path) -> bool:
    """Whether the socket is listened on, without making a connection: a datagram is the wrong kind for a
    listener, while an abandoned path refuses every kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(str(path))
        except OSError as error:
            return error.errno == errno.EPROTOTYPE
    return True


def exiting(pid: int) -> bool:
    """Whether the kernel is taking the process apart: Linux marks that before it closes the first file."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _PF_EXITING)
    except (OSError, IndexError, ValueError):
        return False  # no Linux


def listener(sock: socket.socket) -> int | None:
    """The process at the other end of a Unix socket; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid or None


def _same_target(one: Forward, other: Forward) -> bool:
    return (one.service, one.remote_host, one.remote_port) == (
        other.service,
        other.remote_host,
        other.remote_port,
    )

"""The OpenSSH link: a supervised `ssh -N` child, for what the in-process transport cannot do.

ssh listens on sockets in a private folder, one for each forward; the loopback ports stay ours, so they keep
their promises (bound at all times, a quick reset while SSH is away, counted bytes) with this transport as
well.

The forwards are asked for over a control socket in that folder, once ssh has logged in. On its command line
they would come on top of each LocalForward of the user's configuration, which may well name the ports that
this tunnel has bound; clearing those (ClearAllForwardings) would clear ours as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

from stackctl.tunnel.contract import Tally
from stackctl.tunnel.destination import Destination
from stackctl.tunnel.errors import AuthError, ForwardRefused, HostKeyError, PermanentTunnelError, TunnelError
from stackctl.tunnel.forwarder import Address, Forward
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.sockets import private_folder
from stackctl.tunnel.splice import Splice
from stackctl.tunnel.sshconfig import SshSettings, ssh_argv

READY_TIMEOUT = 60.0
_PR_SET_PDEATHSIG = 1
_PF_EXITING = 0x4
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone has it
_PERMANENT: tuple[tuple[str, type[PermanentTunnelError]], ...] = (
    (r"host key verification failed|identification has changed|no .* host key is known", HostKeyError),
    (r"permission denied|too many authentication failures|no more authentication methods", AuthError),
    (r"administratively prohibited|forwarding disabled|port forwarding failed", ForwardRefused),
    (r"bad configuration option|bad .* argument|invalid .* argument|not a valid", PermanentTunnelError),
)


def command(
    destination: Destination,
    settings: SshSettings,
    config_file: Path | None,
    interval: float,
    control: Path,
) -> list[str]:
    argv = ssh_argv(destination, config_file)
    argv += ["-N", "-T"]
    for option in (
        *settings.overrides,
        "BatchMode=yes",
        "ClearAllForwardings=yes",
        # Two unanswered questions: gone within three intervals.
        f"ServerAliveInterval={max(1, round(interval))}",
        "ServerAliveCountMax=2",
        "ConnectTimeout=10",
        "ControlMaster=yes",
        "ControlPersist=no",
        f"ControlPath={str(control).replace('%', '%%')}",
    ):
        argv += ["-o", option]
    return [*argv, "--", destination.host]


def forward_command(control: Path, forwards: list[tuple[Path, Forward]]) -> list[str]:
    """Asks a connected ssh for the forwards; no configuration is read, for none is needed."""
    argv = ["ssh", "-F", "none", "-o", f"ControlPath={str(control).replace('%', '%%')}", "-O", "forward"]
    for path, forward in forwards:
        host = f"[{forward.remote_host}]" if ":" in forward.remote_host else forward.remote_host
        argv += ["-L", f"{path}:{host}:{forward.remote_port}"]
    return [*argv, "--", "connected"]


def classify(lines: list[str]) -> TunnelError:
    """The error that ssh's last words stand for."""
    text = "\n".join(lines)
    last = lines[-1].strip() if lines else "it said nothing"
    for pattern, kind in _PERMANENT:
        if found := re.search(pattern, text, re.IGNORECASE):
            said = next(line.strip() for line in lines if found[0].splitlines()[0] in line)
            return kind(f"ssh stopped: {said}", fix="try it by hand: ssh -N HOST")
    return TunnelError(f"ssh stopped: {last}")


class OpensshLink:
    transport_name = "openssh"
    detail = "ssh -N"

    def __init__(
        self,
        destination: Destination,
        settings: SshSettings,
        config_file: Path | None,
        forwards: list[Forward],
        interval: float,
    ) -> None:
        self.settings = settings
        self._folder = private_folder()
        self._sockets = {forward: self._folder / str(number) for number, forward in enumerate(forwards)}
        self._said: deque[str] = deque(maxlen=50)
        self._control = control = self._folder / "control"
        self._child = subprocess.Popen(
            command(destination, settings, config_file, interval, control),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
        self._reader = threading.Thread(target=self._listen, name="ssh-stderr", daemon=True)
        self._reader.start()
        try:
            self._wait_ready(control)
        except BaseException:
            self.close()
            raise

    def _listen(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            if line.strip():
                self._said.append(line.rstrip())

    def _wait_ready(self, control: Path) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not control.exists():
            self._check_child()
            if time.monotonic() > deadline:
                raise TunnelError(f"ssh did not connect to {self.settings.address} in {READY_TIMEOUT:.0f} s")
            time.sleep(0.02)
        pairs = [(path, forward) for forward, path in self._sockets.items()]
        try:
            done = subprocess.run(
                forward_command(control, pairs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            raise TunnelError("ssh did not take the forwards in 10 s") from None
        if done.returncode != 0:
            self._check_child()
            said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise TunnelError(f"ssh did not take the forwards: {said[-1]}")

    def _check_child(self) -> None:
        if self._child.poll() is not None:
            self._reader.join(5)
            raise classify(list(self._said))

    def open(self, loop: Loop, forward: Forward, sock: socket.socket, origin: Address, tally: Tally) -> None:
        far = self._connect(forward)
        far.setblocking(False)
        Splice(loop, sock, far, tally, self._lives)

    def _lives(self) -> bool:
        """False once ssh ends: whoever has seen a socket end learns here whether that was the peer's wish or
        ssh's.

        An ssh that lost its server closes its channels in the order of their numbers, of which the control
        socket has the first, and says nothing until all are closed. One that is killed leaves the closing to
        the kernel.
        """
        return not _exiting(self._child.pid) and _listens(self._control)

    def _connect(self, forward: Forward) -> socket.socket:
        path = next(p for f, p in self._sockets.items() if _same_target(f, forward))
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(str(path))
        except OSError:
            far.close()
            raise
        return far

    def check_forwards(self, forwards: list[Forward]) -> list[str]:
        """ssh accepts first, then asks the server: a refusal shows as an early end and a line on stderr."""
        notes = []
        for forward in forwards:
            before = len(self._said)
            with contextlib.closing(self._connect(forward)) as far:
                far.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    if far.recv(1) == b"":
                        error = classify(self._said_about_open(before))
                        if isinstance(error, ForwardRefused):
                            raise error
                        target = f"{forward.remote_host}:{forward.remote_port}"
                        notes.append(f"{forward.service}: nothing answers at {target} on the server")
        return notes

    def _said_about_open(self, before: int) -> list[str]:
        """ssh writes its reason before it ends the connection, but another thread reads it."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if said := [line for line in list(self._said)[before:] if "open failed" in line]:
                return said
            time.sleep(0.01)
        return []

    def trouble(self) -> str | None:
        if self._child.poll() is None:
            return None
        self._reader.join(5)
        error = classify(list(self._said))
        return error.what

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._reader.join(5)
        if self._child.stderr is not None:
            self._child.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _end_with_us() -> None:
    """In the child: the kernel ends ssh when the tunnel is killed, so that no connection is left behind."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _exiting(pid: int) -> bool:
    """Whether the kernel is taking the process apart: Linux marks that before it closes the first file."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _PF_EXITING)
    except (OSError, IndexError, ValueError):
        return False  # no Linux


def _listens(path: Path) -> bool:
    """Whether the socket is listened on, without making a connection: a datagram is the wrong kind for a
    listener, while an abandoned path refuses every kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(str(path))
        except OSError as error:
            return error.errno == errno.EPROTOTYPE
    return True


def _same_target(one: Forward, other: Forward) -> bool:
    return (one.service, one.remote_host, one.remote_port) == (
        other.service,
        other.remote_host,
        other.remote_port,
    )

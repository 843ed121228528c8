"""The OpenSSH link: a supervised `ssh -N` child, for what the in-process transport cannot do.

The forwards are asked for over a control socket in that folder, once ssh has logged in. On its command line
they would come on top of each LocalForward of the user's configuration, which may well name the ports that
this tunnel has bound; clearing those (ClearAllForwardings) would clear ours as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import time
from pathlib import Path

from stackctl.tunnel.destination import Destination
from stackctl.tunnel.diagnosis import diagnose
from stackctl.tunnel.errors import ForwardRefused, TunnelError
from stackctl.tunnel.forwarder import Forward
from stackctl.tunnel.socketlink import SocketLink, exiting, listens
from stackctl.tunnel.sshconfig import SshSettings, ssh_argv
from stackctl.tunnel.words import Words

READY_TIMEOUT = 60.0
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone has it


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


class OpensshLink(SocketLink):
    detail = "ssh -N"

    def __init__(
        self,
        destination: Destination,
        settings: SshSettings,
        config_file: Path | None,
        forwards: list[Forward],
        interval: float,
    ) -> None:
        super().__init__(forwards)
        self.settings = settings
        self._control = control = self.folder / "control"
        self._child = subprocess.Popen(
            command(destination, settings, config_file, interval, control),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
        assert self._child.stderr is not None
        self._words = Words(self._child.stderr)
        try:
            self._wait_ready(control)
        except BaseException:
            self.close()
            raise

    def _wait_ready(self, control: Path) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not control.exists():
            self._check_child()
            if time.monotonic() > deadline:
                raise TunnelError(f"ssh did not connect to {self.settings.address} in {READY_TIMEOUT:.0f} s")
            time.sleep(0.02)
        try:
            self.ask(control, "forward")
        except TunnelError:
            self._check_child()
            raise

    def _check_child(self) -> None:
        if self._child.poll() is not None:
            self._words.finish()
            raise diagnose(list(self._words.lines), self.settings)

    def lives(self) -> bool:
        """An ssh that lost its server closes its channels in the order of their numbers, of which the control
        socket has the first, and says nothing until all are closed. One that is killed leaves the closing to
        the kernel.
        """
        return not exiting(self._child.pid) and listens(self._control)

    def refusal(self, since: float) -> str | None:
        return self._words.refusal(since)

    def check_forwards(self, forwards: list[Forward]) -> list[str]:
        """ssh accepts first, then asks the server: a refusal shows as an early end and a line on stderr."""
        notes = []
        for forward in forwards:
            began = time.monotonic()
            with contextlib.closing(self.connect(forward)) as far:
                far.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    if far.recv(1) == b"":
                        error = diagnose([self.refusal(began) or ""], self.settings)
                        if isinstance(error, ForwardRefused):
                            raise error
                        target = f"{forward.remote_host}:{forward.remote_port}"
                        notes.append(f"{forward.service}: nothing answers at {target} on the server")
        return notes

    def trouble(self) -> str | None:
        if self._child.poll() is None:
            return None
        self._words.finish()
        return diagnose(list(self._words.lines)[-1:], self.settings).what

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._words.close()
        self.remove_folder()


def _end_with_us() -> None:
    """In the child: the kernel ends ssh when the tunnel is killed, so that no connection is left behind."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

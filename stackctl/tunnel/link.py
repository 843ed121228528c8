"""The in-process link: one paramiko session that carries all forwards, watched for life.

Life is proved by what is received, never by what is sent: after `interval` seconds of silence the peer is
asked a question that every SSH server must answer; if nothing at all has come after two and a half
intervals, it is gone. Asking happens on a thread of its own, because a send to a frozen peer blocks.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

import paramiko

from stackctl.tunnel.connect import Session
from stackctl.tunnel.contract import Tally
from stackctl.tunnel.errors import ForwardRefused, TunnelError
from stackctl.tunnel.forwarder import Address, Forward
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.relay import Relay
from stackctl.tunnel.stream import Stream
from stackctl.tunnel.transport import ADMINISTRATIVELY_PROHIBITED

#: After the machine slept, the peer has this long to answer before a new connection is made.
WAKE_DEADLINE = 5.0


class ParamikoLink:
    transport_name = "paramiko"

    def __init__(self, session: Session, interval: float) -> None:
        self.session = session
        self.interval = interval
        self._ask = threading.Event()
        self._asked_at = 0.0
        self._ended = False
        self._slept_at: float | None = None
        self._clocks = time.time() - time.monotonic()
        threading.Thread(target=self._prober, name="prober", daemon=True).start()

    @property
    def detail(self) -> str:
        return str(self.session.transport.local_cipher)

    def open(self, loop: Loop, forward: Forward, sock: socket.socket, origin: Address, tally: Tally) -> None:
        relay = Relay(loop, sock, tally)
        try:
            self.session.transport.open_stream((forward.remote_host, forward.remote_port), origin, relay)
        except Exception:
            tally.relay_ended(relay)
            raise

    def trouble(self) -> str | None:
        """Why the link is dead, or None. Called often."""
        transport = self.session.transport
        now = time.monotonic()
        if not transport.is_active():
            error = transport.get_exception()
            text = str(error) if error is not None else ""
            return "the server closed the connection" + (f": {text}" if text else "")
        silent = now - transport.last_received
        self._notice_sleep(now)
        if self._slept_at is not None:
            if transport.last_received > self._slept_at:
                self._slept_at = None
            elif now - self._slept_at > WAKE_DEADLINE:
                return f"the server did not answer for {WAKE_DEADLINE:.0f} s after this machine slept"
        if silent > self.interval * 2.5:
            return f"the server has not answered for {silent:.1f} s"
        if silent > self.interval and now - self._asked_at > self.interval:
            self._asked_at = now
            self._ask.set()
        return None

    def _notice_sleep(self, now: float) -> None:
        """The monotonic clock stands still while the machine sleeps; the wall clock does not."""
        clocks = time.time() - now
        if clocks - self._clocks > max(self.interval, 5.0):
            self._slept_at = now
            self._asked_at = now
            self._ask.set()
        self._clocks = clocks

    def _prober(self) -> None:
        while True:
            self._ask.wait()
            self._ask.clear()
            if self._ended:
                return
            with contextlib.suppress(Exception):  # a dead session is found by trouble()
                self.session.transport.ask_alive()

    def check_forwards(self, forwards: list[Forward]) -> list[str]:
        """Ask for each forward once. A server that forbids one raises; a silent service is only reported."""
        notes = []
        for forward in forwards:
            target = f"{forward.remote_host}:{forward.remote_port}"
            code, reason = _try_open(self.session, forward)
            if code == ADMINISTRATIVELY_PROHIBITED:
                raise ForwardRefused(
                    f"{self.session.settings.address} forbids forwarding to {target}: {reason}",
                    fix="allow it in the server's sshd_config: AllowTcpForwarding yes, and PermitOpen",
                )
            if code:
                notes.append(f"{forward.service}: nothing answers at {target} on the server ({reason})")
        return notes

    def close(self) -> None:
        self._ended = True
        self._ask.set()
        self.session.close()


class _Trial:
    """The owner of a stream that is opened only to see whether it can be."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.answered = threading.Event()
        self.code, self.reason = 0, ""

    def opened(self) -> None:
        self.answered.set()

    def refused(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason or "refused"
        self.answered.set()

    def remote_closed(self) -> None:
        if self.stream is not None:
            self.stream.forget()

    def lost(self) -> None:
        self.answered.set()

    def received(self, data: memoryview) -> None: ...
    def remote_eof(self) -> None: ...
    def window_opened(self) -> None: ...


def _try_open(session: Session, forward: Forward) -> tuple[int, str]:
    trial = _Trial()
    transport: Any = session.transport
    try:
        stream = transport.open_stream((forward.remote_host, forward.remote_port), ("127.0.0.1", 0), trial)
        if not trial.answered.wait(10.0):
            return 2, "no answer in 10 s"
        if not trial.code:
            stream.send_close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise TunnelError(f"the connection ended while forwards were checked: {error}") from None
    return trial.code, trial.reason

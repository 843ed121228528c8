"""The link over a connection that the user's own ssh shares (ControlMaster): no login of its own.

It is what makes a tunnel possible where a login takes a one-time password: the user logs in once with `ssh
HOST`, and the tunnel joins. How that ssh watches its server is the user's business and may be not at all, so
life is proved here as well: a connection through a forward that says at once that it has nothing to send is
answered, closed or refused by way of the server; in each case, something comes back.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from pathlib import Path

from stackctl.tunnel.contract import Tally
from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.forwarder import Address, Forward
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.socketlink import SocketLink, exiting, listener, listens

FIRST_ANSWER = 10.0


class MasterLink(SocketLink):
    def __init__(self, control: Path, forwards: list[Forward], interval: float) -> None:
        super().__init__(forwards)
        self.control, self.interval = control, interval
        self.detail = f"shares {control}"
        self._ssh: int | None = None
        self._tally: Tally | None = None
        self._bytes = 0
        self._ended = threading.Event()
        self._heard = time.monotonic()
        try:
            self.ask(control, "forward")
            if not self._answers(FIRST_ANSWER):
                raise TunnelError(f"nothing came back over {control} in {FIRST_ANSWER:.0f} s")
        except BaseException:
            self.close()
            raise
        self._heard = time.monotonic()
        threading.Thread(target=self._prober, name="prober", daemon=True).start()

    def open(self, loop: Loop, forward: Forward, sock: socket.socket, origin: Address, tally: Tally) -> None:
        self._tally = tally
        super().open(loop, forward, sock, origin, tally)

    def connect(self, forward: Forward) -> socket.socket:
        far = super().connect(forward)
        self._ssh = listener(far)
        return far

    def lives(self) -> bool:
        """The kernel closes the sockets of an ssh that is killed in an order of its own: a stream may end
        before the one that is asked here."""
        return not (self._ssh is not None and exiting(self._ssh)) and listens(self.control)

    def trouble(self) -> str | None:
        if not listens(self.control):
            return f"the ssh that shared its connection at {self.control} has ended"
        if self._tally is not None and self._tally.bytes_down != self._bytes:
            self._bytes, self._heard = self._tally.bytes_down, time.monotonic()
        silent = time.monotonic() - self._heard
        if silent > self.interval * 2.5:
            return f"the server has not answered over {self.control} for {silent:.1f} s"
        return None

    def check_forwards(self, forwards: list[Forward]) -> list[str]:
        """Why one ends at once is said in the terminal of the ssh that is shared, not to us."""
        notes = []
        for forward in forwards:
            with contextlib.closing(self.connect(forward)) as far:
                far.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    if far.recv(1) == b"":
                        target = f"{forward.remote_host}:{forward.remote_port}"
                        notes.append(
                            f"{forward.service}: nothing answers at {target} on the server, "
                            "or the server forbids the forward"
                        )
        return notes

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(TunnelError):
            self.ask(self.control, "cancel")
        self.remove_folder()

    def _prober(self) -> None:
        while not self._ended.wait(self.interval):
            if self._answers(self.interval):
                self._heard = time.monotonic()

    def _answers(self, within: float) -> bool:
        """Whether anything comes back through any forward: one mute service says nothing about the server."""
        deadline = time.monotonic() + within
        with contextlib.ExitStack() as stack:
            watch = stack.enter_context(selectors.DefaultSelector())
            for forward in self.sockets:
                with contextlib.suppress(OSError):
                    far = stack.enter_context(self.connect(forward))
                    far.shutdown(socket.SHUT_WR)
                    watch.register(far, selectors.EVENT_READ)
            while watch.get_map() and not self._ended.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if watch.select(min(left, 0.5)):
                    return self.lives()
        return False

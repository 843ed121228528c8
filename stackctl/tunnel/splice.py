"""Two local sockets joined: what a forward is when OpenSSH carries it (see openssh.py).

The same promises as relay.py: directions close on their own, memory is bounded, and a far side that is
broken, or was never there, is a reset.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from typing import Protocol

from stackctl.tunnel.contract import Tally, reset
from stackctl.tunnel.loop import Loop

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LIMIT = 256 * 1024


class FarSide(Protocol):
    """Who made the far socket, and knows what its end means."""

    def lives(self) -> bool: ...
    def refusal(self, since: float) -> str | None: ...


class _Side:
    """One of the two sockets, and what waits to be written to it."""

    def __init__(self, splice: Splice, sock: socket.socket) -> None:
        self.splice, self.sock = splice, sock
        self.waiting = bytearray()
        self.read_ended = False
        self.write_ended = False
        self.interest = 0
        self.other: _Side = self

    def ready(self, events: int) -> None:
        self.splice.ready(self, events)


class Splice:
    """All of it runs in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        local: socket.socket,
        far: socket.socket,
        tally: Tally,
        link: FarSide,
    ) -> None:
        self.loop, self.tally, self._link = loop, tally, link
        self.started = time.monotonic()
        self.is_open = True
        self.done = False
        self._answered = False
        self.local, self.far = _Side(self, local), _Side(self, far)
        self.local.other, self.far.other = self.far, self.local
        tally.relay_started(self)
        self._update()

    def ready(self, side: _Side, events: int) -> None:
        if self.done:
            return
        try:
            if events & WRITE:
                self._flush(side)
            if events & READ:
                self._read(side)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._refused()
                self.abandon()
                return
        self._update()

    def _refused(self) -> bool:
        """Whether the server could not reach the service; ssh itself ends such a connection politely."""
        reason = None if self._answered else self._link.refusal(self.started)
        if reason is not None:
            self.tally.relay_refused(self, 2, reason)
        return reason is not None

    def _read(self, side: _Side) -> None:
        data = side.sock.recv(LIMIT)
        if not data:
            if side is self.far and (self._refused() or not self._link.lives()):
                raise ConnectionResetError  # an end that nobody meant: it must not pass for a whole answer
            side.read_ended = True
            return
        if side is self.local:
            self.tally.bytes_up += len(data)
        else:
            self.tally.bytes_down += len(data)
            self._answered = True
        side.other.waiting += data
        with contextlib.suppress(BlockingIOError):
            self._flush(side.other)

    def _flush(self, side: _Side) -> None:
        if side.waiting:
            sent = side.sock.send(side.waiting)
            del side.waiting[:sent]

    def _update(self) -> None:
        for side in (self.local, self.far):
            if side.other.read_ended and not side.waiting and not side.write_ended:
                side.write_ended = True
                with contextlib.suppress(OSError):
                    side.sock.shutdown(socket.SHUT_WR)
        if self.local.write_ended and self.far.write_ended:
            self._end(with_reset=False)
            return
        for side in (self.local, self.far):
            want = 0
            if not side.read_ended and len(side.other.waiting) < LIMIT:
                want |= READ
            if side.waiting:
                want |= WRITE
            self._want(side, want)

    def _want(self, side: _Side, want: int) -> None:
        if want != side.interest:
            self.loop.interest(side.sock, side.interest, want, side)
            side.interest = want

    def abandon(self) -> None:
        self._end(with_reset=True)

    def _end(self, with_reset: bool) -> None:
        if self.done:
            return
        self.done = True
        for side in (self.local, self.far):
            self._want(side, 0)
        if with_reset:
            reset(self.local.sock)
        else:
            self.local.sock.close()
        self.far.sock.close()
        self.tally.relay_ended(self)

"""One forwarded connection: a local socket on one side, a Stream on the other.

Guarantees: each direction is pumped and closed on its own, so a half-close passes through; nothing is
reordered or dropped; what waits in memory never exceeds the window we granted, which starts small and grows
only while the local reader keeps up and there is room for it (windows.py); a connection cut by the loss of
SSH ends with a reset, so that it cannot be taken for a whole answer.

Two threads meet here. The transport's thread writes to the local socket at once when nothing is queued (no
hand-over, no delay), and sends control messages while it need not wait for the network; the loop's thread
reads the local socket, drains the queue, sends the rest, and alone closes the socket, so that its number
cannot become another's while it is read.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from stackctl.tunnel.contract import Tally, reset
from stackctl.tunnel.packets import SMALL_READ, next_read_size
from stackctl.tunnel.stream import FIRST_WINDOW, Stream
from stackctl.tunnel.windows import SHARE

if TYPE_CHECKING:
    from stackctl.tunnel.loop import Loop

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
READ_SIZE = 128 * 1024
MAX_WINDOW = 8 * 1024 * 1024


class Relay:
    def __init__(self, loop: Loop, sock: socket.socket, tally: Tally) -> None:
        self.loop = loop
        self.sock = sock
        self.tally = tally
        self.stream: Stream | None = None
        self.started = time.monotonic()
        self.is_open = False
        self.done = False
        self._lock = threading.Lock()
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._interest = 0
        self._read_size = SMALL_READ
        self._local_eof = False
        self._remote_eof = False
        self._remote_closed = False
        self._local_broken = False
        self._window = FIRST_WINDOW  # what the peer may have in flight to us
        self._consumed = 0
        self._stalled = False  # the local reader fell behind since the last grant
        tally.relay_started(self)

    # --- transport's thread ---

    def opened(self) -> None:
        self.is_open = True
        self.tally.relay_opened(self)
        if self._local_broken:
            self.loop.call(self._close_stream)
            return
        # A client that speaks first has usually done so by now; one read here spares it a wait for the loop.
        if self.stream is not None and self.stream.transport.can_send_now():
            self._read_local()
        with self._lock:
            if not self._local_eof and not self._local_broken:
                self._want(READ)

    def refused(self, code: int, reason: str) -> None:
        self.tally.relay_refused(self, code, reason)
        self._end(with_reset=True)

    def received(self, data: memoryview) -> None:
        size = len(data)
        with self._lock:
            if self.done or self._local_broken:
                return  # the close of this stream is on its way
            if not self._queue:
                try:
                    sent = self.sock.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._break_local()
                    return
                data = data[sent:]
                self._consumed += sent
            if data:
                self._queue.append(data)
                self._queued += len(data)
                self._stalled = True
                self._want(self._interest | WRITE)
            grant = self._take_grant()
        self.tally.bytes_down += size
        if grant and self.stream is not None:
            if self.stream.transport.can_send_now():
                self.stream.grant(grant)
            else:
                self.loop.call(lambda: self._grant(grant))

    def remote_eof(self) -> None:
        with self._lock:
            self._remote_eof = True
            if not self._queue:
                self._shut_local()
            over = self._is_over()
        if over:
            self._close_at_once()

    def remote_closed(self) -> None:
        with self._lock:
            self._remote_closed = self._remote_eof = True
            over = not self._queue  # otherwise the rest of the answer is still ours to deliver
        if over:
            self._close_at_once()

    def _close_at_once(self) -> None:
        if self.stream is not None and self.stream.transport.can_send_now():
            self._close_stream()
        else:
            self.loop.call(self._close_stream)

    def window_opened(self) -> None:
        with self._lock:
            if not self.done and not self._local_eof and not self._remote_closed:
                self._want(self._interest | READ)

    def lost(self) -> None:
        with self._lock:
            complete = self._remote_closed or (self._remote_eof and self._local_eof)
            if complete and self._queue:
                self._remote_closed = True  # all of the answer has arrived: deliver it, then end
                return
        self._end(with_reset=not complete)

    # --- loop's thread ---

    def ready(self, events: int) -> None:
        if events != READ:
            self._drain()
        if events & READ:
            self._read_local()

    def _read_local(self) -> None:
        stream = self.stream
        if stream is None or self.done or self._local_eof:
            return
        room = stream.window
        if room <= 0:
            with self._lock:
                # Look again under the lock: window_opened() may have run between the two.
                if stream.window <= 0:
                    self._want(self._interest & ~READ)
            return
        asked = min(room, self._read_size)
        try:
            data = self.sock.recv(
                asked
            )  # without the lock: a writer may be off the processor while it has it
        except BlockingIOError:
            return
        except OSError:
            with self._lock:
                self._break_local()
            return
        if data:
            try:
                stream.send(data)
            except Exception:  # noqa: BLE001 - as in _guard
                self.lost()
            self.tally.bytes_up += len(data)
            if len(data) == asked or asked > SMALL_READ:
                self._read_size = next_read_size(len(data), asked, READ_SIZE)
            return
        with self._lock:
            self._local_eof = True
            self._want(self._interest & ~READ)
        self._guard(stream.send_eof)
        with self._lock:
            over = self._is_over()
        if over:
            self._close_stream()

    def _drain(self) -> None:
        with self._lock:
            if self.done:
                return
            try:
                while self._queue:
                    sent = self.sock.send(self._queue[0])
                    self._queued -= sent
                    self._consumed += sent
                    if sent == len(self._queue[0]):
                        self._queue.popleft()
                    else:
                        self._queue[0] = self._queue[0][sent:]
            except BlockingIOError:
                pass
            except OSError:
                self._break_local()
                return
            if not self._queue:
                self._want(self._interest & ~WRITE)
                if self._remote_eof:
                    self._shut_local()
                if self._remote_closed or self._is_over():
                    self.loop.call(self._close_stream)
            grant = self._take_grant()
        if grant:
            self._grant(grant)

    def _grant(self, size: int) -> None:
        stream = self.stream
        if stream is not None and not self.done:
            self._guard(lambda: stream.grant(size))

    def _close_stream(self) -> None:
        stream = self.stream
        if stream is None or not self.is_open:
            return  # not answered yet: opened() or refused() comes back here
        self._guard(stream.send_close)
        if self._remote_closed:
            stream.forget()
            self._end(with_reset=self._local_broken)

    def _guard(self, send: Callable[[], None]) -> None:
        """Send; a session that ends meanwhile is a lost one."""
        try:
            send()
        except Exception:  # noqa: BLE001 - paramiko raises EOFError, OSError, SSHException and ProxyCommandFailure
            self.lost()

    def abandon(self) -> None:
        """From the loop: the peer did not answer the open request in time, or the tunnel goes down."""
        with self._lock:
            self._local_broken = True
        if self.is_open:
            self._close_stream()
        self._end(with_reset=True)

    # --- both, with the lock held ---

    def _want(self, events: int) -> None:
        if self.done or events == self._interest:
            return
        self.loop.interest(self.sock, self._interest, events, self)
        self._interest = events

    def _take_grant(self) -> int:
        """Give back what the local side took; a window that was drained without a stall doubles, if there is
        room, and a large one shrinks where others have none."""
        if self._remote_eof or self._consumed * 2 < self._window:
            return 0
        grant, windows = self._consumed, self.tally.windows
        if self._window > SHARE and windows.scarce:
            self._window //= 2
            grant -= self._window
            windows.give(self._window)
        elif not self._stalled and self._window < MAX_WINDOW and windows.take(self._window):
            grant += self._window
            self._window *= 2
        self._consumed, self._stalled = 0, bool(self._queue)
        return grant

    def _shut_local(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def _break_local(self) -> None:
        self._local_broken = True
        self._queue.clear()
        self._want(0)
        self.loop.call(self._close_stream)

    def _is_over(self) -> bool:
        return self._local_eof and self._remote_eof and not self._queue

    def _end(self, with_reset: bool) -> None:
        with self._lock:
            if self.done:
                return
            self._want(0)
            self.done = True
            self._queue.clear()
            self.tally.windows.give(self._window - FIRST_WINDOW)
            if not with_reset:
                self._shut_local()
        sock = self.sock
        self.loop.close_there(lambda: reset(sock) if with_reset else sock.close(), at_once=with_reset)
        self.tally.relay_ended(self)

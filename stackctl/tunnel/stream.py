"""The channel of one forwarded connection: its owner (a relay) is called from the transport's thread when the
peer answers, sends, or ends, and sends from its own thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
)

if TYPE_CHECKING:
    from stackctl.tunnel.transport import TunnelTransport

#: The window a new forward starts with; it grows as its reader proves that it drains (see relay.py).
FIRST_WINDOW = 256 * 1024
#: The largest packet we ask for. OpenSSH sends up to this when it has that much to send.
MAX_PACKET = 128 * 1024


class StreamOwner(Protocol):
    """Called from the transport's thread; must not block."""

    stream: Stream | None

    def opened(self) -> None: ...
    def refused(self, code: int, reason: str) -> None: ...
    def received(self, data: memoryview) -> None: ...
    def remote_eof(self) -> None: ...
    def remote_closed(self) -> None: ...
    def window_opened(self) -> None: ...
    def lost(self) -> None: ...


class Stream:
    """One forwarded connection's channel. The methods with an underscore are those that paramiko calls."""

    def __init__(self, transport: TunnelTransport, chanid: int, owner: StreamOwner) -> None:
        self.chanid = chanid
        self.transport = transport
        self.owner = owner
        owner.stream = self  # before the first answer can arrive
        self.remote_chanid = -1
        self.max_packet = 32 * 1024
        self.window = 0  # what the peer takes from us at present
        self._window_lock = threading.Lock()
        self.close_sent = False
        self.eof_sent = False

    # Called in the owner's thread.
    def send(self, data: bytes) -> None:
        """Send data that fits the window (the caller looked at `window`)."""
        with self._window_lock:
            self.window -= len(data)
        self.transport.send_stream_data(self, data)

    def send_eof(self) -> None:
        if not self.eof_sent and not self.close_sent:
            self.eof_sent = True
            self.transport.send_control(MSG_CHANNEL_EOF, self.remote_chanid)

    def send_close(self) -> None:
        if not self.close_sent:
            self.close_sent = True
            self.transport.send_control(MSG_CHANNEL_CLOSE, self.remote_chanid)

    def grant(self, size: int) -> None:
        """Let the peer send that many more bytes."""
        if not self.close_sent:
            self.transport.send_control(MSG_CHANNEL_WINDOW_ADJUST, self.remote_chanid, size)

    def forget(self) -> None:
        """Both sides have closed: the number may be used again."""
        self.transport.forget_stream(self)

    # Called by paramiko, in the transport's thread.
    def _set_remote_channel(self, chanid: int, window: int, max_packet: int) -> None:
        self.remote_chanid = chanid
        self.window = window
        self.max_packet = min(max_packet, MAX_PACKET)

    def _feed(self, message: Any) -> None:
        self.owner.received(memoryview(message.get_binary()))

    def _feed_extended(self, message: Any) -> None:
        """A forward has no stderr; RFC 4254 gives it no meaning, so it is dropped."""

    def _window_adjust(self, message: Any) -> None:
        self.adjust(message.get_int())

    def adjust(self, size: int) -> None:
        with self._window_lock:
            was = self.window
            self.window += size
        if was < self.max_packet:
            self.owner.window_opened()

    def _handle_request(self, message: Any) -> None:
        message.get_text()
        if message.get_boolean():
            self.transport.send_control(MSG_CHANNEL_FAILURE, self.remote_chanid)

    def _handle_eof(self, message: Any) -> None:
        self.owner.remote_eof()

    def _handle_close(self, message: Any) -> None:
        self.owner.remote_closed()

    def _request_success(self, message: Any) -> None: ...
    def _request_failed(self, message: Any) -> None: ...

    def _unlink(self) -> None:
        self.owner.lost()

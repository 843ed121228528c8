"""What a relay and its owner owe each other, whichever transport carries it, and how a connection is cut."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Protocol

from stackctl.tunnel.windows import Windows

_RESET = struct.pack("ii", 1, 0)


class AnyRelay(Protocol):
    """One connection on its way, over whichever transport."""

    started: float
    is_open: bool

    def abandon(self) -> None:
        """In the loop's thread: cut it, with a reset."""
        ...


class Tally(Protocol):
    """What the owner of relays counts and hears; the calls come from either thread."""

    bytes_up: int
    bytes_down: int
    windows: Windows

    def relay_started(self, relay: AnyRelay) -> None: ...
    def relay_opened(self, relay: AnyRelay) -> None: ...
    def relay_ended(self, relay: AnyRelay) -> None: ...
    def relay_refused(self, relay: AnyRelay, code: int, reason: str) -> None: ...


def reset(sock: socket.socket) -> None:
    """Close with RST: the client sees an error at once, not an end of file."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()

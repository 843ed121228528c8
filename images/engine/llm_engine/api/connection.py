"""A connection whose requests have heads of a bounded size, and no WebSocket.

The parser keeps a header until its line ends: without a limit, anybody could fill the server's memory before
a key was looked at. Guarantees: address, headers and trailers of one request are at most `MOST_HEAD` bytes,
and so is what has come and is no part of a request yet, however it was cut on its way; more is answered with
431 and the end of the connection.
"""

from __future__ import annotations

import logging

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

log = logging.getLogger("llm_engine.server")
MOST_HEAD = 64 << 10
AROUND = 4
"""Bytes around a header: the colon, a space, and the end of the line."""
LINGER_SECONDS = 1.0
"""How long a refused sender may go on: closing at once would take the answer away from it."""


class HeadTooLarge(Exception):
    """The parser ends at it."""


class Connection(HttpToolsProtocol):
    head = 0
    """Bytes of the address, headers and trailers of the present request."""
    silent = 0
    """Bytes of a head that the parser has not made anything of yet."""
    too_large = False

    def data_received(self, data: bytes) -> None:
        if self.too_large:
            return
        self.silent += len(data)
        super().data_received(data)
        if self.silent > MOST_HEAD and not self.too_large and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head = 0

    def on_url(self, url: bytes) -> None:
        self._more(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._more(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.silent = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.silent = 0
        super().on_message_complete()

    def _more(self, size: int) -> None:
        self.silent = max(0, self.silent - size - AROUND)
        self.head += size
        if self.head > MOST_HEAD:
            raise HeadTooLarge

    def send_400_response(self, msg: str) -> None:
        """How the base class answers what the parser did not take."""
        if self.head > MOST_HEAD:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _refuse(self) -> None:
        self.too_large = True
        log.warning(
            "request head too large",
            extra={"data": {"client": self.client[0] if self.client else "local", "limit": MOST_HEAD}},
        )
        if self.cycle is None or self.cycle.response_complete:
            text = f"request head is larger than {MOST_HEAD} bytes".encode()
            self.transport.write(
                STATUS_LINE[431]
                + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
                + f"content-length: {len(text)}\r\n\r\n".encode()
                + text
            )
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing: an upgrade that is not offered is answered as if it were not asked for."""

"""A paramiko transport whose forwards are `Stream`s: opened without waiting, delivered without queues.

paramiko's `open_channel` blocks a thread for each connection and its `Channel` copies every byte into a
buffer for another thread to fetch. See stream.py for what takes their place.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any, ClassVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.message import Message

from stackctl.tunnel.packets import TunnelPacketizer
from stackctl.tunnel.stream import FIRST_WINDOW, MAX_PACKET, Stream, StreamOwner

ADMINISTRATIVELY_PROHIBITED = 1

Address = tuple[str, int]
_CONTROL = struct.Struct(">BI")  # message, channel
_DATA = struct.Struct(">BII")  # message, channel, length or value
_THREE_INTS = struct.Struct(">III")


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def _by_name(name: str) -> Callable[[Any, Any], None]:
    return lambda channel, message: getattr(channel, name)(message)


#: Untyped: what is overridden here is not in the published types.
_Transport: Any = paramiko.Transport


class TunnelTransport(_Transport):  # type: ignore[misc]
    # Fast first: AES-GCM authenticates and encrypts in one pass and takes the short path of packets.py.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    # An idle tunnel should not wake ten times a second; closing wakes the reader by itself (packets.py).
    _active_check_timeout = 1.0
    # paramiko's table names functions of Channel itself; a Stream has methods of the same names.
    _channel_handler_table: ClassVar[dict[int, Callable[[Any, Any], None]]] = {
        MSG_CHANNEL_SUCCESS: _by_name("_request_success"),
        MSG_CHANNEL_FAILURE: _by_name("_request_failed"),
        MSG_CHANNEL_DATA: _by_name("_feed"),
        MSG_CHANNEL_EXTENDED_DATA: _by_name("_feed_extended"),
        MSG_CHANNEL_WINDOW_ADJUST: _by_name("_window_adjust"),
        MSG_CHANNEL_REQUEST: _by_name("_handle_request"),
        MSG_CHANNEL_EOF: _by_name("_handle_eof"),
        MSG_CHANNEL_CLOSE: _by_name("_handle_close"),
    }

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, packetizer_class=TunnelPacketizer)
        self.streams: dict[int, Stream] = {}

    # --- opening ---

    def open_stream(self, destination: Address, origin: Address, owner: StreamOwner) -> Stream:
        """Ask for a connection to `destination` as seen from the server; the owner hears the answer."""
        if not self.active:
            raise paramiko.SSHException("the SSH session has ended")
        self.packetizer.deliver = self._deliver
        with self.lock:
            chanid = self._next_channel()
            stream = Stream(self, chanid, owner)
            self._channels.put(chanid, stream)
            self.channels_seen[chanid] = True
            self.streams[chanid] = stream
        host, source = destination[0].encode(), origin[0].encode()
        start = b"".join(
            (
                bytes([MSG_CHANNEL_OPEN]),
                _string(b"direct-tcpip"),
                _THREE_INTS.pack(chanid, FIRST_WINDOW, MAX_PACKET),
                _string(host) + destination[1].to_bytes(4, "big"),
                _string(source) + origin[1].to_bytes(4, "big"),
            )
        )
        self.send_message(start)
        return stream

    def _parse_channel_open_success(self, message: Any) -> None:
        stream = self.streams.get(int.from_bytes(message.asbytes()[:4], "big"))
        super()._parse_channel_open_success(message)
        if stream is not None:
            stream.owner.opened()

    def _parse_channel_open_failure(self, message: Any) -> None:
        stream = self.streams.get(int.from_bytes(message.asbytes()[:4], "big"))
        if stream is None:
            super()._parse_channel_open_failure(message)
            return
        message.get_int()
        code, reason = message.get_int(), message.get_text()
        self.forget_stream(stream)
        stream.owner.refused(code, reason)

    def forget_stream(self, stream: Stream) -> None:
        with self.lock:
            if self.streams.pop(stream.chanid, None) is not None:
                self._channels.delete(stream.chanid)
                # paramiko remembers every number for ever; a tunnel lives for months.
                self.channels_seen.pop(stream.chanid, None)

    # --- moving ---

    def _deliver(self, payload: memoryview) -> bool:
        """The short path of packets.py: the messages of a forward, without a Message around them."""
        kind, chanid = _CONTROL.unpack_from(payload)
        stream = self.streams.get(chanid)
        if stream is None:
            return False
        if kind == MSG_CHANNEL_DATA:
            stream.owner.received(payload[9 : 9 + int.from_bytes(payload[5:9], "big")])
        elif kind == MSG_CHANNEL_WINDOW_ADJUST:
            stream.adjust(int.from_bytes(payload[5:9], "big"))
        elif kind == MSG_CHANNEL_EOF:
            stream.owner.remote_eof()
        elif kind == MSG_CHANNEL_CLOSE:
            stream.owner.remote_closed()
        elif kind == MSG_CHANNEL_OPEN_SUCCESS:
            stream._set_remote_channel(*_THREE_INTS.unpack(payload[5:17]))
            stream.owner.opened()
        return True

    def send_stream_data(self, stream: Stream, data: bytes) -> None:
        size, step = len(data), stream.max_packet - 64
        if size <= step:
            self.send_message(_DATA.pack(MSG_CHANNEL_DATA, stream.remote_chanid, size), data)
            return
        pieces = [memoryview(data)[at : at + step] for at in range(0, size, step)]
        payloads = [
            (_DATA.pack(MSG_CHANNEL_DATA, stream.remote_chanid, len(piece)), piece) for piece in pieces
        ]
        if not self.packetizer.can_send_fast():
            for start, piece in payloads:
                self._send_user_message(Message(start + piece))
            return
        self._wait_clear_to_send()
        try:
            if self.active:
                self.packetizer.send_sealed(payloads)
        finally:
            self.clear_to_send_lock.release()

    def send_control(self, kind: int, chanid: int, value: int | None = None) -> None:
        start = _CONTROL.pack(kind, chanid) if value is None else _DATA.pack(kind, chanid, value)
        self.send_message(start)

    def send_message(self, start: bytes, data: bytes = b"") -> None:
        if not self.packetizer.can_send_fast():
            self._send_user_message(Message(start + data))
            return
        self._wait_clear_to_send()
        try:
            if self.active:
                self.packetizer.send_one(start, data)
        finally:
            self.clear_to_send_lock.release()

    def _wait_clear_to_send(self) -> None:
        """Take the lock that key exchange needs, outside of any exchange, as `_send_user_message` does."""
        self.clear_to_send_lock.acquire()
        if self.clear_to_send.is_set() or not self.active:
            return
        self.clear_to_send_lock.release()
        deadline = time.monotonic() + self.clear_to_send_timeout
        while True:
            self.clear_to_send.wait(1.0)
            self.clear_to_send_lock.acquire()
            if self.clear_to_send.is_set() or not self.active:
                return
            self.clear_to_send_lock.release()
            if time.monotonic() > deadline:
                raise paramiko.SSHException("the key exchange did not finish in time")

    def can_send_now(self) -> bool:
        """Whether the transport's own thread may send: it must wait neither for a key exchange, which it is
        itself a part of, nor behind a writer whom the network holds up."""
        return bool(self.clear_to_send.is_set()) and not self.clear_to_send_lock.locked()

    # --- liveness ---

    def ask_alive(self) -> None:
        """A question that any SSH server must answer; the answer is seen as `last_received`."""
        message = Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)

    @property
    def last_received(self) -> float:
        return float(self.packetizer.last_received)

    def prefer_host_keys(self, types: list[str]) -> None:
        """Offer these types alone, in this order (before the handshake)."""
        self._preferred_keys = tuple(types)

    def close(self) -> None:
        super().close()
        # paramiko unlinks its channels only while its thread is the one that ends the session.
        for stream in list(self.streams.values()):
            stream.owner.lost()

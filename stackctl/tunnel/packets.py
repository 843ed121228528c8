"""The SSH packet layer of a tunnel: paramiko's, with a buffered reader and a short path for forwards.

paramiko reads each packet with two or more system calls and hands every byte through four copies and two
thread switches. A tunnel moves bulk data, so with an AES-GCM cipher the packets of forwards are decrypted
and delivered here, and outgoing data is sealed and written in batches. Everything else, and every other
cipher, takes paramiko's own path.

Guarantees: `last_received` is the time of the last packet that was authenticated, so it proves that the
peer lives; packets leave in the order of the calls; a packet of the short path counts towards re-keying as
any other.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import paramiko.packet

READ_SIZE = 256 * 1024
SMALL_READ = 16 * 1024
GCM_TAG = 16
BLOCK = 16
_PADDING = [bytes(n) for n in range(BLOCK + 4)]
_PADDING_LENGTH = [bytes([n]) for n in range(BLOCK + 4)]
_ONE_SECOND = struct.pack("ll", 1, 0)
_UINT64_MASK = (1 << 64) - 1

#: Called with the whole payload of a message; False when it is not for a forward.
Deliver = Callable[[memoryview], bool]
#: The messages that may belong to a forward: open confirmed, window adjust, data, EOF, close.
SHORT_PATH = frozenset({91, 93, 94, 96, 97})


#: Untyped: what is overridden here is not in the published types.
_Packetizer: Any = paramiko.packet.Packetizer
NeedRekeyException = paramiko.packet.NeedRekeyException


class TunnelPacketizer(_Packetizer):  # type: ignore[misc]
    _Packetizer__remainder: Any
    _Packetizer__iv_in: Any
    _Packetizer__iv_out: Any
    _Packetizer__sequence_number_in: Any
    _Packetizer__sequence_number_out: Any

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self._sock = sock
        self._sendmsg = getattr(sock, "sendmsg", None)
        if isinstance(sock, socket.socket):
            # A time limit kept by the kernel: Python's own would cost a poll() before each read and write.
            sock.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, _ONE_SECOND)
        self._buffer = memoryview(b"")
        self._read_size = SMALL_READ
        self.last_received = time.monotonic()
        self.bytes_received = 0
        #: Set once the session is authenticated; until then every packet takes paramiko's path.
        self.deliver: Deliver | None = None

    # --- reading ---

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if len(self._buffer) < n:
            self._fill(n, check_rekey)
        out = bytes(self._buffer[:n])
        self._buffer = self._buffer[n:]
        return out

    def _fill(self, n: int, check_rekey: bool = False) -> None:
        """Make at least n bytes available; waits in slices so that closing and re-keying are noticed."""
        if self.deliver is not None and not self._buffer and self._fill_at_once(n):
            return
        have = bytes(self._buffer)
        early = self._Packetizer__remainder  # what came in one read with the peer's version line
        if early:
            have, self._Packetizer__remainder = have + early, b""
        pieces, total = [have], len(have)
        while total < n:
            if self.handshake_timed_out() or self.closed:
                raise EOFError
            asked = self._read_size
            try:
                piece = self._sock.recv(asked)
            except (TimeoutError, BlockingIOError):
                if check_rekey and total == 0 and self.need_rekey():
                    raise NeedRekeyException from None
                continue
            except OSError:
                if self.closed:
                    raise EOFError from None
                raise
            if not piece:
                raise EOFError
            if len(piece) == asked or asked > SMALL_READ:
                self._read_size = next_read_size(len(piece), asked, READ_SIZE)
            pieces.append(piece)
            total += len(piece)
        self._buffer = memoryview(b"".join(pieces))

    def _fill_at_once(self, n: int) -> bool:
        """Nearly always: nothing was left over, and one read brings whole packets."""
        asked = self._read_size
        try:
            piece = self._sock.recv(asked)
        except OSError:
            return False  # what it means is for _fill to say
        if len(piece) == asked or asked > SMALL_READ:
            self._read_size = next_read_size(len(piece), asked, READ_SIZE)
        self._buffer = memoryview(piece)
        return len(piece) >= n

    def _read_timeout(self, timeout: float) -> bytes:
        """For the version line; paramiko's own knows only Python's kind of timeout."""
        deadline = time.monotonic() + timeout
        while not self.closed:
            try:
                piece: bytes = self._sock.recv(128)
            except (TimeoutError, BlockingIOError):
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                continue
            if not piece:
                break
            return piece
        raise EOFError

    def read_message(self) -> tuple[int, Any]:
        while (
            self.deliver is not None
            and self._Packetizer__aead_in
            and not self._Packetizer__dump_packets
            and self._Packetizer__compress_engine_in is None
        ):
            buffer = self._buffer
            if len(buffer) < 4:
                self._fill(4, check_rekey=True)
                buffer = self._buffer
            head = bytes(buffer[:4])
            length = int.from_bytes(head, "big")
            whole = 4 + length + GCM_TAG
            if length > READ_SIZE + 1024:
                break  # not a packet OpenSSH would send: let paramiko judge it
            if len(buffer) < whole:
                self._fill(whole)
                buffer = self._buffer
            plain = self._Packetizer__block_engine_in.decrypt(self._Packetizer__iv_in, buffer[4:whole], head)
            # Its first byte is the length of the padding, then the message follows.
            if plain[1] not in SHORT_PATH or not self.deliver(memoryview(plain)[1 : length - plain[0]]):
                break  # the buffer is untouched: paramiko decrypts this one again
            self._buffer = buffer[whole:]
            self._count_read(whole)
            if self._Packetizer__need_rekey:
                raise NeedRekeyException
        command, message = super().read_message()
        self.last_received = time.monotonic()
        return command, message

    def _count_read(self, size: int) -> None:
        """What paramiko's read_message does after each packet, for one that it has not seen."""
        self.last_received = time.monotonic()
        self._Packetizer__iv_in = _next_iv(self._Packetizer__iv_in)
        self._Packetizer__sequence_number_in = (self._Packetizer__sequence_number_in + 1) & 0xFFFFFFFF
        self._Packetizer__received_bytes += size
        self._Packetizer__received_packets += 1
        if not self._Packetizer__need_rekey and (
            self._Packetizer__received_bytes >= self.REKEY_BYTES
            or self._Packetizer__received_packets >= self.REKEY_PACKETS
        ):
            self._Packetizer__received_bytes_overflow = 0
            self._Packetizer__received_packets_overflow = 0
            self._trigger_rekey()

    # --- writing ---

    def can_send_fast(self) -> bool:
        return bool(self._Packetizer__aead_out) and self._Packetizer__compress_engine_out is None

    def send_sealed(self, payloads: Sequence[tuple[bytes, memoryview]]) -> None:
        """Seal each (start of message, data) as one packet and write them together."""
        with self._Packetizer__write_lock:
            out = [self._sealed(start, data) for start, data in payloads]
            self._write_pieces(out)
            self._count_sent(sum(map(len, out)), len(out))

    def send_one(self, start: bytes, data: bytes) -> None:
        """The same for one packet that someone waits for: as little as possible before the write."""
        with self._Packetizer__write_lock:
            packet = self._sealed(start, data)
            try:
                sent = self._sock.send(packet)
            except (TimeoutError, BlockingIOError):
                sent = 0
            except OSError:
                raise EOFError from None
            if sent < len(packet):
                self.write_all(packet[sent:])
            self._count_sent(len(packet), 1)

    def _sealed(self, start: bytes, data: bytes | memoryview) -> bytes:
        size = len(start) + len(data)
        padding = 3 + BLOCK - (size + 4) % BLOCK  # the length field is not padded (RFC 5647)
        length = (1 + size + padding).to_bytes(4, "big")
        iv = self._Packetizer__iv_out
        # Spent from here on, whatever becomes of the packet.
        self._Packetizer__iv_out = _next_iv(iv)
        plain = b"".join((_PADDING_LENGTH[padding], start, data, _PADDING[padding]))
        return length + self._Packetizer__block_engine_out.encrypt(iv, plain, length)  # type: ignore[no-any-return]

    def _count_sent(self, size: int, packets: int) -> None:
        self._Packetizer__sequence_number_out = (self._Packetizer__sequence_number_out + packets) & 0xFFFFFFFF
        self._Packetizer__sent_bytes += size
        self._Packetizer__sent_packets += packets
        if not self._Packetizer__need_rekey and (
            self._Packetizer__sent_bytes >= self.REKEY_BYTES
            or self._Packetizer__sent_packets >= self.REKEY_PACKETS
        ):
            self._Packetizer__received_bytes_overflow = 0
            self._Packetizer__received_packets_overflow = 0
            self._trigger_rekey()

    def _write_pieces(self, pieces: list[bytes]) -> None:
        if self._sendmsg is None:
            self.write_all(b"".join(pieces))
            return
        try:
            sent = self._sendmsg(pieces)
        except (TimeoutError, BlockingIOError):
            sent = 0
        except OSError:
            raise EOFError from None
        total = sum(map(len, pieces))
        if sent < total:
            self.write_all(memoryview(b"".join(pieces))[sent:])

    def close(self) -> None:
        # A plain close would leave the reading thread in recv() until its time slice is over.
        with contextlib.suppress(OSError, AttributeError, EOFError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().close()


def next_read_size(got: int, asked: int, most: int) -> int:
    """Room for a large read is taken from the system and given back each time, which costs more than a
    small read itself: only a stream that fills its reads gets large ones.
    """
    if got == asked:
        return max(SMALL_READ, min(asked * 4, most))
    return asked if got * 4 > asked else SMALL_READ


def _next_iv(iv: bytes) -> bytes:
    """Fixed four bytes, then a 64-bit counter that wraps (RFC 5647 section 7.1)."""
    return iv[:4] + ((int.from_bytes(iv[4:], "big") + 1) & _UINT64_MASK).to_bytes(8, "big")

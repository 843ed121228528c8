"""The runner's threads: one reads requests, one computes (on a processor with one to help; see `apart`), one
writes answers.

The reader tokenises and builds samplers, so the computing thread never waits for a long prompt's text. The
writer takes finished frames from a queue, so a server that reads slowly never stops a turn; only admission
pauses while it is far behind. Idle, all sleep in the kernel. When the server goes away the reader sees
the end of the socket and the process ends at once, whatever the other threads are doing: a runner never
outlives its server.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

from llm_engine.runner import protocol
from llm_engine.runner.protocol import Splitter, encode

# How far behind the server may be, in bytes, before nobody new is admitted.
BACKLOG = 8 << 20

Work = Callable[[], None]


class Writer:
    """Sends frames in order from a thread of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        with self._lock:
            self._pending += len(frame)
        self._frames.put(frame)

    @property
    def behind(self) -> bool:
        return self._pending > BACKLOG

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            try:
                self._sock.sendall(frame)
            except OSError:
                return  # the reader notices that the server is gone, and ends the process
            with self._lock:
                self._pending -= len(frame)

    def close(self) -> None:
        """Send what is queued, then stop."""
        self._frames.put(None)
        self._thread.join(timeout=5)


class Reader:
    """Turns frames into work for the computing thread."""

    def __init__(self, sock: socket.socket, inbox: queue.SimpleQueue[Work]) -> None:
        self._sock = sock
        self._inbox = inbox
        self._splitter = Splitter()
        self._handlers: dict[str, Callable[[int, Any], Work | None]] = {}
        self._writer: Writer | None = None

    def handle(self, kind: str, handler: Callable[[int, Any], Work | None]) -> None:
        """`handler` runs on the reading thread; what it returns runs on the computing thread."""
        self._handlers[kind] = handler

    def start(self, writer: Writer) -> None:
        self._writer = writer
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def _run(self) -> None:
        try:
            while data := self._sock.recv(1 << 20):
                for frame in self._splitter.feed(data):
                    self._dispatch(*frame)
        except (OSError, protocol.ProtocolError):
            traceback.print_exc()
        finally:
            # Also when nobody reads stderr any more: a server that was killed takes its end of that pipe
            # along, and the attempt to say so must not keep the runner alive.
            os._exit(0)

    def _dispatch(self, kind: str, request_id: int, payload: Any) -> None:
        assert self._writer is not None
        handler = self._handlers.get(kind)
        try:
            if handler is None:
                raise ValueError(f"this runner does not know the message {kind!r}")
            work = handler(request_id, payload)
        except Exception as error:  # noqa: BLE001 - see `refusal`
            self._writer.send(refusal(request_id, error))
            return
        if work is not None:
            self._inbox.put(work)


def failure(request_id: int, kind: str, text: str) -> bytes:
    return encode("turn", 0, [(request_id, protocol.FAILED, kind, text)])


def refusal(request_id: int, error: Exception) -> bytes:
    """What to answer where a request could not be prepared. Whatever it was, it is the end of that request
    alone: an error that left the thread would take the answers of all others along.
    """
    if isinstance(error, ValueError | TypeError | KeyError | OverflowError):
        return failure(request_id, "invalid", str(error))
    if isinstance(error, RecursionError):
        return failure(request_id, "invalid", "the request's schema or grammar is nested too deeply")
    if isinstance(error, MemoryError):
        return failure(request_id, "internal", "the runner is out of memory")
    traceback.print_exception(error)
    return failure(request_id, "internal", f"{type(error).__name__}: {error}")


class Pulse:
    """How many steps the computing thread has begun and ended: the reading thread tells it to whoever wants
    to know whether anything goes on."""

    def __init__(self) -> None:
        self.count = 0

    def step(self, work: Work) -> None:
        self.count += 1
        work()
        self.count += 1


def pump(inbox: queue.SimpleQueue[Work], busy: Callable[[], bool], turn: Work, pulse: Pulse) -> None:
    """Run work as it comes and turns while there is something to compute; sleep otherwise. Ends by
    `SystemExit`.
    """
    while True:
        try:
            pulse.step(inbox.get(block=not busy()))
            while True:
                pulse.step(inbox.get_nowait())
        except queue.Empty:
            pass
        if busy():
            pulse.step(turn)

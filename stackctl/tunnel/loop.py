"""The one thread that watches every local socket of a tunnel.

Other threads may change what is watched (`interest`) and hand in work (`call`); both take effect at once,
also while the loop sleeps in the kernel. epoll and kqueue allow a change during a wait, which makes this
cheap.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

TICK = 0.5


class Watcher(Protocol):
    def ready(self, events: int) -> None: ...


class Loop:
    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._tickers: list[Callable[[float], None]] = []
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._stopping = self._closed = False
        self._woken = False  # a wake is under way: nobody else need send one
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._closed:
            return
        self._stopping = True
        self._wake()
        self._thread.join()
        with self._lock:
            self._closed = True
            self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def every_tick(self, call: Callable[[float], None]) -> None:
        self._tickers.append(call)

    def call(self, work: Callable[[], None]) -> None:
        """Run it soon in the loop's thread, after what was handed in before."""
        self._calls.append(work)
        if threading.current_thread() is not self._thread:
            self._wake()

    def interest(self, sock: socket.socket, before: int, after: int, watcher: Watcher) -> None:
        with self._lock:
            if self._closed:
                return
            if not before:
                self._selector.register(sock, after, watcher)
            elif not after:
                self._selector.unregister(sock)
            else:
                self._selector.modify(sock, after, watcher)

    def _wake(self) -> None:
        if self._closed or self._woken:
            return
        self._woken = True
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._wake_in.send(b"w")

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK
        while not self._stopping:
            now = time.monotonic()
            timeout = 0.0 if self._calls else max(0.0, next_tick - now) if self._tickers else None
            for key, events in self._selector.select(timeout):
                if key.data is None:
                    self._clear_wake()
                else:
                    key.data.ready(events)
            for _ in range(len(self._calls)):
                self._calls.popleft()()
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK
                for ticker in self._tickers:
                    ticker(now)
        while self._calls:
            self._calls.popleft()()

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        self._woken = False  # after the read: whoever saw True until now has its call run in this round

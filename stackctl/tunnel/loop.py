"""The one thread that watches every local socket of a tunnel.

Other threads may change what is watched (`interest`) and hand in work (`call`); both take effect at once,
also while the loop sleeps in the kernel. epoll and kqueue allow a change during a wait, which makes this
cheap. Where there is epoll it is asked directly: the `selectors` module would spend more time on each event
than the rest of the way from the kernel to a relay.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

TICK = 0.5
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Watcher(Protocol):
    def ready(self, events: int) -> None: ...


class _Epoll:
    """Linux: descriptors and the kernel's own bits, of which IN and OUT are asked for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._in, self._out = select.EPOLLIN, select.EPOLLOUT
        self.close = self._epoll.close

    def watch(self, descriptor: int, before: int, after: int) -> None:
        mask = (self._in if after & READ else 0) | (self._out if after & WRITE else 0)
        if not before:
            self._epoll.register(descriptor, mask)
        elif not after:
            self._epoll.unregister(descriptor)
        else:
            self._epoll.modify(descriptor, mask)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        found = self._epoll.poll(timeout)
        if len(found) == 1 and found[0][1] == self._in:
            return found if self._in == READ else [(found[0][0], READ)]
        # An error or a hang-up is told to whoever waits, whatever it waits for.
        return [
            (descriptor, (READ if mask & ~self._out else 0) | (WRITE if mask & ~self._in else 0))
            for descriptor, mask in found
        ]


class _Selector:
    """Every other system, by the way that Python knows."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close

    def watch(self, descriptor: int, before: int, after: int) -> None:
        if not before:
            self._selector.register(descriptor, after)
        elif not after:
            self._selector.unregister(descriptor)
        else:
            self._selector.modify(descriptor, after)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]


class Loop:
    def __init__(self, name: str) -> None:
        self._poller = _Epoll() if hasattr(select, "epoll") else _Selector()
        self._watchers: dict[int, tuple[Watcher, int]] = {}  # and what each waits for
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._tickers: list[Callable[[float], None]] = []
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._stopping = self._closed = False
        self.interest(self._wake_out, 0, READ, self)
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
            self._poller.close()
        self._wake_in.close()
        self._wake_out.close()

    def every_tick(self, call: Callable[[float], None]) -> None:
        self._tickers.append(call)

    def call(self, work: Callable[[], None]) -> None:
        """Run it soon in the loop's thread, after what was handed in before."""
        self._calls.append(work)
        if threading.current_thread() is not self._thread:
            self._wake()

    def close_there(self, close: Callable[[], None], at_once: bool) -> None:
        """Close a socket in the loop's thread: now, or in the course of its next round."""
        if self._closed or threading.current_thread() is self._thread:
            close()
        elif at_once:
            self.call(close)
        else:
            self._calls.append(close)

    def interest(self, sock: socket.socket, before: int, after: int, watcher: Watcher) -> None:
        with self._lock:
            if self._closed:
                return
            descriptor = sock.fileno()
            self._poller.watch(descriptor, before, after)
            if after:
                self._watchers[descriptor] = (watcher, after)
            else:
                del self._watchers[descriptor]

    def _wake(self) -> None:
        if self._closed or self._woken:
            return
        self._woken = True
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._wake_in.send(b"w")

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK
        wait, watchers = self._poller.wait, self._watchers
        while not self._stopping:
            timeout = None
            if self._calls:
                timeout = 0.0
            elif self._tickers:
                timeout = max(0.0, next_tick - time.monotonic())
            for descriptor, events in wait(timeout):
                watched = watchers.get(descriptor)
                if watched is not None:  # otherwise it has ended since the kernel said so
                    watched[0].ready(events & watched[1])
            for _ in range(len(self._calls)):
                self._calls.popleft()()
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK
                for ticker in self._tickers:
                    ticker(now)
        while self._calls:
            self._calls.popleft()()

    def ready(self, events: int) -> None:
        """The loop is woken for its calls."""
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        self._woken = False  # after the read: whoever saw True until now has its call run in this round

"""How far the windows of a tunnel's connections may grow together.

A window that was granted cannot be taken back, and all of it may arrive when its reader has just stopped. So
the sum of what windows have grown by is bounded, for all connections of a tunnel; when room is scarce, large
windows of connections that are in use are let shrink, so that others get their share.
"""

from __future__ import annotations

import threading

ROOM = 64 * 1024 * 1024
#: Down to this a window shrinks for the sake of others: enough for 10 MB/s over a way of 100 ms.
SHARE = 1024 * 1024


class Windows:
    def __init__(self, room: int = ROOM) -> None:
        self.room = self._free = room
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        return self._free

    @property
    def scarce(self) -> bool:
        return self._free < self.room // 4

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
        return True

    def give(self, size: int) -> None:
        with self._lock:
            self._free += size

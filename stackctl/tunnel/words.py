"""What an ssh child says on stderr: kept for the reason it ends with, and known at once to whoever needs it.

A thread reads it as it comes. Whoever has just seen a connection end can also read it now: ssh says why a
connection could not be made before it ends it.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections import deque
from typing import IO

_OPEN_FAILED = re.compile(r"channel \d+: (open failed: .*)")


class Words:
    def __init__(self, pipe: IO[bytes]) -> None:
        self.lines: deque[str] = deque(maxlen=50)
        self._pipe = pipe
        self._rest = b""
        self._refusals: deque[tuple[float, str]] = deque(maxlen=200)
        self._lock = threading.Lock()
        os.set_blocking(pipe.fileno(), False)
        self._thread = threading.Thread(target=self._listen, name="ssh-stderr", daemon=True)
        self._thread.start()

    def refusal(self, since: float) -> str | None:
        """The first refused connection after that moment that nobody has asked about yet."""
        self._drain()
        with self._lock:
            while self._refusals:
                at, reason = self._refusals.popleft()
                if at >= since:
                    return reason
        return None

    def finish(self, wait: float = 5.0) -> None:
        """ssh has ended: read its last words."""
        self._thread.join(wait)

    def close(self, wait: float = 5.0) -> None:
        self.finish(wait)
        self._pipe.close()

    def _listen(self) -> None:
        ready = select.poll()
        ready.register(self._pipe, select.POLLIN)
        while ready.poll() and self._drain():
            pass

    def _drain(self) -> bool:
        """Take in all that has been said; False at the end."""
        with self._lock:
            while True:
                try:
                    data = os.read(self._pipe.fileno(), 65536)
                except BlockingIOError:
                    return True
                except (OSError, ValueError):
                    return False
                if not data:
                    self._keep(self._rest)
                    self._rest = b""
                    return False
                *whole, self._rest = (self._rest + data).split(b"\n")
                for line in whole:
                    self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        self.lines.append(text)
        if failed := _OPEN_FAILED.search(text):
            self._refusals.append((time.monotonic(), failed[1]))

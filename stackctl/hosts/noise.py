"""What is on the standard error of ssh beside the run's own words: the server's banner and a login script's
output before them, ssh's good-bye behind them.

All of it is shown, and none of it is counted as the run's: the count is the place from which the far side
goes on after a lost connection.
"""

from __future__ import annotations

from typing import BinaryIO

from stackctl.hosts.sessions import MARK


def after_noise(source: BinaryIO, tail: Tail) -> bytes:
    """Pass on at once what the server says at a login: it may be what to do. It is not in the run's count."""
    while data := bytes(source.read1(65536)):  # type: ignore[attr-defined]
        noise, mark, rest = data.partition(MARK)
        tail.write(noise)
        if mark:
            tail.finish()
            tail.marked = True
            return rest
        tail.flush()
    return b""


class Tail:
    """Passes on all but a last line that ends in CR LF: that is how ssh itself says good-bye."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.kept = b""
        self.marked = False  # what comes is the run's

    def write(self, data: bytes) -> None:
        data = self.kept + data
        self.kept = b""
        if data.endswith(b"\r\n"):
            at = data.rfind(b"\n", 0, -2) + 1
            data, self.kept = data[:at], data[at:]
        self.target.write(data)

    def finish(self) -> None:
        """What was kept was not ssh's good-bye."""
        self.target.write(self.kept)
        self.target.flush()
        self.kept = b""

    def flush(self) -> None:
        self.target.flush()

"""A program at a terminal of its own, and what a person sees and types there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

CTRL_C, CTRL_D, CTRL_G, ENTER = "\x03", "\x04", "\x07", "\r"


def _at_a_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Whoever runs the tests in the background may have had these ignored, which is inherited.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """`expect` moves on behind what it found, so each thing is seen once."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], columns: int = 100) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **env},
            start_new_session=True,
            preexec_fn=_at_a_terminal,
        )
        os.close(slave)
        self.seen = ""
        self.at = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def line(self, text: str) -> None:
        self.type(text + ENTER)

    def expect(self, text: str, seconds: float = 30) -> str:
        """What came before `text`, which must come."""
        deadline = time.monotonic() + seconds
        for _ in self._pieces(deadline):
            found = self.seen.find(text, self.at)
            if found >= 0:
                before, self.at = self.seen[self.at : found], found + len(text)
                return before
        raise AssertionError(f"{text!r} did not come; since the last find:\n{self.seen[self.at :]!r}")

    def ends(self, seconds: float = 30) -> int:
        """The exit code, and everything that was said until then is seen."""
        for _ in self._pieces(time.monotonic() + seconds):
            if self.process.poll() is not None:
                break
        return self.process.wait(1)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _pieces(self, deadline: float) -> Iterator[None]:
        yield
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.master], [], [], left)
            if not ready:
                return
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # the program closed its end
                yield
                return
            self.seen += piece.decode("utf-8", "replace")
            yield

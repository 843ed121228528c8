"""Reading lines at a terminal: Emacs keys, a hint in an empty line, and a history that survives a kill.

The keys are readline's. It cannot show a hint, so that is shown before readline starts, until the first key.
Each line is appended to the history file when it has been entered; at the next start the file is cut to the
last hundred lines.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import readline
except ImportError:  # a Python that was built without it: lines are read as they come
    readline = None  # type: ignore[assignment]

HISTORY_LINES = 100
EDIT = "\x07"
"""Ends a line whose writer wants to go on in an editor (Ctrl-g)."""
PASTES, NO_PASTES = "\x1b[?2004h", "\x1b[?2004l"
GREY, PLAIN = "\x1b[38;5;245m", "\x1b[0m"


def history_path() -> Path:
    return Path.home() / ".ollama" / "history"


class Lines:
    """One at a time: readline has one history for the whole process."""

    def __init__(self, *, remember: bool = True) -> None:
        self.remember = remember
        self._path = history_path()
        self._editing = False
        if readline is not None:
            readline.set_auto_history(False)
            readline.parse_and_bind("set enable-bracketed-paste on")
            # At the end of the line the key itself, quoted, then Enter: the reader sees what is asked for.
            readline.parse_and_bind(r'"\C-g": "\C-e\C-v\C-g\C-m"')
            for line in self._kept():
                readline.add_history(line)

    def read(self, prompt: str, hint: str = "") -> str:
        """EOFError at Ctrl-d, KeyboardInterrupt at Ctrl-c."""
        if readline is None or not sys.stdin.isatty():
            return input(prompt)
        self._editing = False
        with _single_keys() as echo:
            _show(prompt, hint)
            echo()
            self._editing = True
            line = input(prompt)
        self._add(line.removesuffix(EDIT))
        return line

    def interrupted_empty(self) -> bool:
        """Whether the line that Ctrl-c ended had nothing in it."""
        return readline is None or not self._editing or not readline.get_line_buffer()

    def _kept(self) -> list[str]:
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []
        kept = lines[-HISTORY_LINES:]
        if len(lines) > len(kept):
            with contextlib.suppress(OSError):
                new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
                new.write_text("".join(f"{line}\n" for line in kept))
                os.chmod(new, 0o600)
                os.replace(new, self._path)
        return kept

    def _add(self, line: str) -> None:
        if not self.remember or not line.strip():
            return
        readline.add_history(line)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"{line}\n")


@contextlib.contextmanager
def _single_keys() -> Iterator[Callable[[], None]]:
    """The terminal gives each key at once, and shows none until what is yielded has been called.

    Readline shows keys only at a terminal that would. Going back to whole lines in between would lose keys.
    """
    before = termios.tcgetattr(sys.stdin)

    def echo() -> None:
        mode = termios.tcgetattr(sys.stdin)
        mode[tty.LFLAG] |= termios.ECHO
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)

    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)
        yield echo
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _show(prompt: str, hint: str) -> None:
    """The prompt with a hint behind it, until a key waits to be read."""
    room = shutil.get_terminal_size().columns > len(prompt) + len(hint)
    if not hint or not room or os.environ.get("TERM") == "dumb":
        return
    # A paste must come as one here, too: its first line ends no message.
    sys.stdout.write(f"{PASTES}{prompt}{GREY}{hint}{PLAIN}\x1b[{len(hint)}D")
    sys.stdout.flush()
    try:
        select.select([sys.stdin], [], [])
    except KeyboardInterrupt:
        sys.stdout.write(NO_PASTES)
        raise
    finally:
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()

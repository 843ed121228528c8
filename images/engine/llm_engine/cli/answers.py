"""Printing an answer while it comes: words wrapped at the edge of the terminal, thoughts set apart."""

from __future__ import annotations

import shutil
import sys
from typing import Any, TextIO

GREY, PLAIN = "\x1b[90m", "\x1b[0m"
MAX_WORD = 200


class Printer:
    def __init__(
        self, *, wordwrap: bool = True, hide_thinking: bool = False, out: TextIO | None = None
    ) -> None:
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.wraps = wordwrap and self.live
        self.hide_thinking = hide_thinking
        self._thinking = False
        self._column = 0
        self._word = ""

    def thinking(self, text: str) -> None:
        if not text or self.hide_thinking:
            return
        if not self._thinking:
            self._thinking = True
            self._raw((GREY if self.live else "") + "Thinking...\n")
        self._wrapped(text)

    def content(self, text: str) -> None:
        if not text:
            return
        if self._thinking:
            self._flush()
            self._thinking = False
            self._raw(f"\n...done thinking.\n{PLAIN if self.live else ''}\n")
        self._wrapped(text)

    def end(self) -> None:
        self._flush()
        if self._thinking:
            self._thinking = False
            self._raw(f"\n...done thinking.\n{PLAIN if self.live else ''}")
        self._raw("\n\n")

    def _raw(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
        self._column = 0

    def _wrapped(self, text: str) -> None:
        if not self.wraps:
            self.out.write(text)
            self.out.flush()
            return
        width = shutil.get_terminal_size().columns
        for char in text:
            if char in " \n" or len(self._word) > MAX_WORD:
                self._put(width)
                if char == "\n":
                    self.out.write("\n")
                    self._column = 0
                elif self._column < width - 1:
                    self.out.write(char)
                    self._column += 1
            else:
                self._word += char
        self.out.flush()

    def _put(self, width: int) -> None:
        if self._column and self._column + len(self._word) > width - 1:
            self.out.write("\n")
            self._column = 0
        self.out.write(self._word)
        self._column += len(self._word)
        self._word = ""

    def _flush(self) -> None:
        if self._word:
            self._put(shutil.get_terminal_size().columns)
            self.out.flush()


def print_timings(last: dict[str, Any], out: TextIO | None = None) -> None:
    """What the final object of an answer says of its cost."""
    lines = []

    def duration(label: str, key: str) -> None:
        if last.get(key):
            lines.append((label, go_duration(last[key])))

    def count(label: str, key: str) -> None:
        if last.get(key):
            lines.append((f"{label} count:", f"{last[key]} token(s)"))

    def rate(label: str, key: str) -> None:
        if last.get(f"{key}_count") and last.get(f"{key}_duration"):
            per_second = last[f"{key}_count"] / (last[f"{key}_duration"] / 1e9)
            lines.append((f"{label} rate:", f"{per_second:.2f} tokens/s"))

    duration("total duration:", "total_duration")
    duration("load duration:", "load_duration")
    for label, key in (("prompt eval", "prompt_eval"), ("eval", "eval")):
        count(label, f"{key}_count")
        duration(f"{label} duration:", f"{key}_duration")
        rate(label, key)
    for label, text in lines:
        (out or sys.stderr).write(f"{label:<22}{text}\n")


def go_duration(nanoseconds: int) -> str:
    """`1.2s`, `300ms`, `2m3.5s`: as Go prints a duration."""
    if nanoseconds < 1_000:
        return f"{nanoseconds}ns"
    if nanoseconds < 1_000_000:
        return f"{_trimmed(nanoseconds / 1e3)}µs"
    if nanoseconds < 1_000_000_000:
        return f"{_trimmed(nanoseconds / 1e6)}ms"
    seconds = nanoseconds / 1e9
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    rest = f"{_trimmed(seconds % 60)}s"
    if hours:
        return f"{hours}h{minutes}m{rest}"
    return f"{minutes}m{rest}" if minutes else rest


def _trimmed(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")

"""Progress on stderr: one line per status, bars for what has a size. Without a terminal, one plain line per
status."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from llm_engine.models import human

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
REFRESH = 0.1
SPEED_WINDOW = 5.0


@dataclass
class _Line:
    text: str
    total: int = 0
    completed: int = 0
    seen: list[tuple[float, int]] = field(default_factory=list)

    def update(self, total: int, completed: int, now: float) -> None:
        self.total, self.completed = total, completed
        self.seen = [*(item for item in self.seen if now - item[0] < SPEED_WINDOW), (now, completed)]

    @property
    def speed(self) -> float:
        (start, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def render(self, width: int, frame: str) -> str:
        if not self.total:
            return f"{self.text} {frame}" if frame else self.text
        percent = self.completed * 100 // self.total
        left = f"{self.text}: {percent:3d}% "
        sizes = human.size(self.total)
        rest = ""
        if self.completed < self.total:
            sizes = f"{human.size(self.completed)}/{sizes}"
            if self.speed > 0:
                left_over = _clock((self.total - self.completed) / self.speed)
                rest = f" {human.size(int(self.speed))}/s {left_over:>6}"
        right = f" {sizes:>15}{rest:<18}"
        room = width - len(left) - len(right) - 3
        if room < 5:
            return (left + right)[: width - 1]
        full = room * self.completed // self.total
        return f"{left}▕{'█' * full}{' ' * (room - full)}▏{right}"


def _clock(seconds: float) -> str:
    whole = min(int(seconds), 359999)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Progress:
    """Feed it the statuses of a pull, push or create."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self.lines: dict[str, _Line] = {}
        self._shown = 0
        self._last = 0.0
        self._frame = 0

    def follow(self, statuses: Iterable[dict[str, Any]]) -> None:
        try:
            for status in statuses:
                self.feed(status)
        finally:
            self._draw(final=True)

    def feed(self, status: dict[str, Any]) -> None:
        text = str(status.get("status", ""))
        total, completed = int(status.get("total", 0)), int(status.get("completed", 0))
        key = str(status.get("digest") or text)
        new = key not in self.lines
        line = self.lines.setdefault(key, _Line(text))
        now = time.monotonic()
        line.update(total, completed, now)
        if not self.live:
            if new:
                self.out.write(text + "\n")
                self.out.flush()
        elif now - self._last >= REFRESH:
            self._last = now
            self._draw()

    def _draw(self, final: bool = False) -> None:
        if not self.live or not self.lines:
            return
        self._frame += 1
        size = shutil.get_terminal_size()
        lines = list(self.lines.values())[-max(size.lines - 1, 1) :]
        busy = "" if final else FRAMES[self._frame % len(FRAMES)]
        rendered = [line.render(size.columns, busy if line is lines[-1] else "") for line in lines]
        up = f"\x1b[{self._shown - 1}A\r" if self._shown > 1 else "\r"
        body = "\n".join(f"\x1b[2K{line}" for line in rendered)
        # Synchronized output: the terminal shows each state as a whole.
        show_cursor = "\x1b[?25h" if final else "\x1b[?25l"
        self.out.write(f"\x1b[?2026h{up if self._shown else ''}{body}{show_cursor}\x1b[?2026l")
        if final:
            self.out.write("\n")
        self.out.flush()
        self._shown = len(rendered)

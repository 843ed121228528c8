"""What a runner printed last, and which line of it says why it died.

Guarantees: no more than `MOST` lines are kept; a grammar that llama.cpp could not read, which it prints whole
and not through its log, is not among them: it belongs to one client, and these lines are told to others.
"""

from __future__ import annotations

import re
from collections import deque

MOST = 40
# An assertion as `ggml_abort` prints it, and an exception that nobody caught.
_ABORTED = re.compile(r"\S+\.\w+:\d+: \S|\s*what\(\):\s+\S")
# What a graphics card's library said; the assertion that follows says no more than that it said something.
_CARD = re.compile(r"(CUDA|ROCm|MUSA|HIP) error: ")
_GRAMMAR_BEGINS, _GRAMMAR_ENDS = "parse: error parsing grammar: ", "failed to parse grammar"


class LastLines:
    """`add` for each line as it comes."""

    def __init__(self) -> None:
        self._lines: deque[tuple[bool, str]] = deque(maxlen=MOST)
        self._works = False
        self._in_grammar = False

    def add(self, line: str) -> None:
        if line.startswith(_GRAMMAR_BEGINS):
            self._in_grammar = True
        elif line == _GRAMMAR_ENDS:
            self._in_grammar = False
        if not self._in_grammar:
            self._lines.append((self._works, line))

    def works(self) -> None:
        """The model is loaded: what was said until now is not why the runner dies one day."""
        self._works = True

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(line for _, line in self._lines)

    def why(self) -> str:
        """The line that says why it died, or nothing."""
        lines = [line for works, line in reversed(self._lines) if works == self._works and line.strip()]
        for telling in (_CARD, _ABORTED):
            if found := next((line for line in lines if telling.match(line)), ""):
                return found.strip()
        return lines[0].strip() if lines else ""

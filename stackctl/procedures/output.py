"""What a program said, as much of it as is kept: the end, with secrets hidden before anything is cut.

Two views: `shown` for the journal and the terminal, and `whole` for the steps that come after, which need the
very words. What was too long to keep is cut, and then both are the shown one.
"""

from __future__ import annotations

import codecs

from stackctl.redact import Stream, redacted_patterns

LINES = 40
CHARACTERS = 4096
LONGEST_LINE = 2000
KEPT = 1 << 16


class Output:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stream = Stream()
        self._hidden = ""
        self._cut = False
        self._whole = ""

    def add(self, piece: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(piece, final)
        if len(self._whole) <= CHARACTERS:
            self._whole += text[: CHARACTERS + 1]
        self._hidden += self._stream.feed(text) + (self._stream.close() if final else "")
        if len(self._hidden) > 2 * KEPT:
            self._hidden, self._cut = self._hidden[-KEPT:], True

    @property
    def shown(self) -> str:
        lines = [redacted_patterns(line)[:LONGEST_LINE] for line in self._from_a_border().splitlines()]
        return "\n".join(lines[-LINES:])[-CHARACTERS:]

    @property
    def whole(self) -> str:
        fits = len(self._whole) <= CHARACTERS and self._whole.count("\n") <= LINES
        return self._whole if fits else self.shown

    def _from_a_border(self) -> str:
        """Without the line that was cut: `password=` may have been what was cut off."""
        if not self._cut:
            return self._hidden
        first, newline, rest = self._hidden.partition("\n")
        return rest if newline else " ".join(first.split(" ")[2:])

"""From token bytes to text that may be shown: whole characters only, and never part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """Takes the bytes of one token at a time and gives back what is safe to send.

    A character whose bytes are spread over tokens is held until it is whole; bytes that can never become one
    are replaced as Unicode prescribes. Text that could be the beginning of a stop string is held until it is
    not.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = _new_decoder("replace")
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.matched: str | None = None
        self.taken = self.given = 0
        """How many characters have come in, and how many were given back."""

    @property
    def halfway(self) -> bool:
        """Whether the last bytes that came are the beginning of a character."""
        return bool(self._decoder.getstate()[0])

    def push(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        self.taken += len(text)
        if self._stops:
            text = self._sift(self._held + text) if self.matched is None else ""
        self.given += len(text)
        return text

    def finish(self) -> str:
        """What was held back, once nothing more can come."""
        text = self._decoder.decode(b"", True)
        self.taken += len(text)
        if self.matched is not None:
            return ""
        if self._stops:
            text = self._sift(self._held + text) + ("" if self.matched else self._held)
            self._held = ""
        self.given += len(text)
        return text

    def _sift(self, text: str) -> str:
        found = [(at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """The length of the longest end of `text` that begins `stop`."""
        for length in range(min(len(text), len(stop) - 1), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0

"""What wakes a sleeping grammar: a pattern in the text as it grows, or a certain token.

Each token is looked at once: a pattern is searched for only where a match could end in the newest token, so
that a long answer costs no more per token than a short one. What the model thinks wakes nothing: a call that
it only considers is not one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

REACH = 1024
"""A match is at most this many bytes long."""


class Trigger:
    """The text so far, and whether the next token would end the sleep.

    `\\A` in a pattern is the beginning of the answer, which is also where its thinking has ended.
    """

    def __init__(
        self,
        patterns: Sequence[re.Pattern[bytes]],
        tokens: Iterable[int] = (),
        thinking: tuple[bytes, bytes] | None = None,
        *,
        in_thought: bool = False,
    ) -> None:
        self._patterns = patterns
        self._tokens = frozenset(tokens)
        self._tags = thinking
        self._in_thought = in_thought and thinking is not None
        self._text = bytearray()
        self._starts: list[tuple[int, int]] = []

    def push(self, token: int, piece: bytes) -> None:
        """The text went on with `token`, and the grammar sleeps on."""
        before = len(self._text)
        self._starts.append((before, token))
        self._text += piece
        in_thought, begin = self._answer(before)
        self._in_thought = in_thought
        if begin:
            del self._text[:begin]
            self._starts = [(at - begin, known) for at, known in self._starts if at >= begin]

    def woken_by(self, token: int, piece: bytes) -> tuple[bytes, list[int]] | None:
        """None, or what the grammar is to be fed: the text up to a token's border, and the tokens from
        there.
        """
        if token in self._tokens:
            return b"", [token]
        before = len(self._text)
        self._text += piece
        try:
            in_thought, begin = self._answer(before)
            start = None if in_thought else self._search(max(begin, before + 1 - REACH), before)
            return None if start is None else self._since(start, token, before)
        finally:
            del self._text[before:]

    def _answer(self, before: int) -> tuple[bool, int]:
        """Whether the text ends inside a thought, and where the answer begins that follows the last one."""
        in_thought, begin = self._in_thought, 0
        while self._tags is not None:
            tag = self._tags[in_thought]
            at = self._text.find(tag, max(begin, before - len(tag) + 1, 0))
            if at < 0:
                break
            in_thought, begin = not in_thought, at + len(tag)
        return in_thought, begin

    def _search(self, begin: int, before: int) -> int | None:
        """Where the grammar's text begins in a match that ends in the newest token."""
        for pattern in self._patterns:
            for match in pattern.finditer(self._text, begin):
                if match.end() > before:
                    groups = (i for i in range(1, pattern.groups + 1) if match.group(i))
                    return match.start(next(groups, 0))
        return None

    def _since(self, start: int, token: int, before: int) -> tuple[bytes, list[int]]:
        starts = [*self._starts, (before, token)]
        whole = [known for at, known in starts if at >= start]
        first = next((at for at, _ in starts if at >= start), len(self._text))
        return bytes(self._text[start:first]), whole

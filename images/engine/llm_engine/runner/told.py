"""What is told of tokens beside their text: held back exactly as long as the text is.

Guarantees: a token is told of when the last of its text has left, or with the end of the answer; of a stop
string's tokens nothing is told. A token that carries text from before the stop string is told of whole.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_engine.runner.messages import TokenLogprob
from llm_engine.runner.text import TextStream


class _Told(NamedTuple):
    start: int
    """The characters of its text, counted from the beginning of the answer."""
    end: int
    token: int
    logprob: TokenLogprob | None


class Told:
    """The tokens of one answer that the client has not been told of."""

    def __init__(self) -> None:
        self._held: list[_Told] = []

    def add(self, token: int, logprob: TokenLogprob | None, start: int, text: TextStream) -> None:
        """`start` is what the text had taken in before this token."""
        self._held.append(_Told(start, text.taken + text.halfway, token, logprob))

    def leave(self, text: TextStream, *, over: bool = False) -> tuple[list[int], list[TokenLogprob]]:
        """The ids and log-probabilities that may be told of now, given how much of the text has left."""
        held = self._held
        if text.matched is not None:
            count, self._held = len(held), []
            while count and held[count - 1].start >= text.given:
                count -= 1
        else:
            count = len(held) if over else 0
            while count < len(held) and held[count].end <= text.given:
                count += 1
            self._held = held[count:]
        going = held[:count]
        return [one.token for one in going], [one.logprob for one in going if one.logprob is not None]

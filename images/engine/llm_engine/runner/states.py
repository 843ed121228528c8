"""Finished sequences of models whose memory is one state: kept whole, taken over whole.

A state cannot be cut back to an earlier token, so an earlier sequence helps only a prompt that begins with
all of it; the next turn of a conversation does. The one used least recently goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from llm_engine.runner.prefix import common_prefix
from llm_engine.runner.vocab import TokenArray


class States:
    """Sequence ids of idle states, with the tokens each has seen."""

    def __init__(self) -> None:
        self._idle: OrderedDict[int, TokenArray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._idle)

    @property
    def cells(self) -> int:
        return sum(len(tokens) for tokens in self._idle.values())

    def read(self) -> Iterable[TokenArray]:
        """What the idle states have seen."""
        return self._idle.values()

    def keep(self, sequence: int, tokens: TokenArray) -> None:
        self._idle[sequence] = tokens.copy()

    def find(self, prompt: TokenArray, beyond: int = 0) -> tuple[int, int] | None:
        """The state that has seen the most of the prompt's beginning, more than `beyond` tokens of it, and
        nothing else: its sequence, and how many they are.
        """
        best, length = -1, beyond
        for sequence, tokens in self._idle.items():
            if length < len(tokens) <= len(prompt) and common_prefix(tokens, prompt) == len(tokens):
                best, length = sequence, len(tokens)
        return (best, length) if best >= 0 else None

    def take(self, prompt: TokenArray, beyond: int = 0) -> tuple[int, int] | None:
        """The same; it leaves the idle ones."""
        found = self.find(prompt, beyond)
        if found is not None:
            del self._idle[found[0]]
        return found

    def drop(self) -> int | None:
        """Give up the oldest; its sequence id, or None where there is none."""
        return self._idle.popitem(last=False)[0] if self._idle else None

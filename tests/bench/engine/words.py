"""Deterministic nonsense in real words, one token each, so that both servers read the same number of
tokens.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from gguf import GGUFReader


@cache
def vocabulary(path: Path) -> tuple[str, ...]:
    """Plain lower-case words that the tokenizer has whole."""
    field = GGUFReader(path).fields["tokenizer.ggml.tokens"]
    pieces = (str(piece) for piece in field.contents())
    words = (piece[1:] for piece in pieces if piece.startswith("▁"))
    return tuple(
        sorted(
            {word for word in words if len(word) > 3 and word.isascii() and word.islower() and word.isalpha()}
        )
    )


class Words:
    """Texts by number of words; the same seed gives the same texts."""

    def __init__(self, vocabulary_file: Path, seed: int) -> None:
        self._words = vocabulary(vocabulary_file)
        self._random = random.Random(seed)

    def text(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, k=count))

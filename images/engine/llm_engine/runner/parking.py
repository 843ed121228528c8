"""Prefixes that nobody uses now, kept in main memory instead of in cells.

On a processor, attention looks at the mask of every cell in use, so idle prefixes make every token of every
running request dearer; and where they fill the cache, new ones push them out. Parked, a prefix costs bytes
alone, and to bring it back is a copy. Prefixes that begin alike are stored once: what is parked is a tree of
pieces, each going on where another one was left. Guarantees: `match` never claims more than what its chain of
pieces holds; the pieces never take more bytes than the budget, nor the last of the memory there is; a
piece that others go on from stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llm_engine.runner.prefix import common_prefix
from llm_engine.runner.room import available_ram
from llm_engine.runner.seqstate import Bytes
from llm_engine.runner.vocab import TokenArray

# Fewer tokens than this are computed again sooner than they are worth a piece of their own.
WORTH_PARKING = 16
# What is parked leaves this much main memory to others, whatever the budget says.
LEFT_FREE = 256 << 20
Save = Callable[[int, Callable[[int], bool]], Bytes | None]


def default_budget() -> int:
    """A quarter of the memory that is free now, at most 8 GiB."""
    return min(8 << 30, available_ram() // 4)


class Piece:
    """The cells of `tokens`, which come after the first `start` tokens of the chain up to `parent`."""

    __slots__ = ("children", "data", "last_used", "parent", "start", "tokens")

    def __init__(self, parent: Piece | None, start: int, tokens: TokenArray, data: Bytes) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.data = data
        self.children: dict[tuple[int, int], Piece] = {}
        """By the position and the token they begin with, which is never how this piece goes on itself."""
        self.last_used = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class Parking:
    """The tree of pieces, within a budget of bytes; the least recently used ends go first."""

    def __init__(self, budget: int, room: Callable[[], int] = available_ram) -> None:
        self.budget = budget
        self._room = room
        self.bytes = 0
        self.dropped = 0
        self._root = Piece(None, 0, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8))
        self._pieces: set[Piece] = set()
        self._clock = 0

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def tokens(self) -> int:
        return sum(len(piece.tokens) for piece in self._pieces)

    def _find(self, tokens: TokenArray) -> tuple[int, Piece]:
        self._clock += 1
        piece, length = self._root, 0
        while length < len(tokens):
            child = piece.children.get((length, int(tokens[length])))
            if child is None:
                break
            child.last_used = self._clock
            piece, length = child, length + common_prefix(child.tokens, tokens[length:])
        return length, piece

    def match(self, tokens: TokenArray) -> int:
        """How many leading tokens are parked; marks them as used."""
        return self._find(tokens)[0]

    def chain(self, tokens: TokenArray, beyond: int) -> list[tuple[Piece, int]]:
        """The pieces that hold `tokens[beyond:]` as far as it is parked, each with where it is left."""
        upto, piece = self._find(tokens)
        chain: list[tuple[Piece, int]] = []
        while piece.parent is not None and upto > beyond:
            chain.append((piece, upto))
            upto, piece = piece.start, piece.parent
        return chain[::-1]

    def park(self, tokens: TokenArray, save: Save) -> bool:
        """Keep what of `tokens` is not kept yet; `save(start, fits)` gives the cells from there to the end,
        once `fits` has agreed to their size: a copy is made only where there is room for it.

        False where there was nothing worth a piece, or no room for it.
        """
        start, parent = self._find(tokens)
        if len(tokens) - start < WORTH_PARKING:
            return False
        data = save(start, lambda size: self._make_room(size, parent))
        if data is None:
            return False
        piece = Piece(parent, start, np.array(tokens[start:], dtype=np.int32), data)
        piece.last_used = self._clock
        parent.children[start, int(tokens[start])] = piece
        self._pieces.add(piece)
        self.bytes += data.nbytes
        return True

    def _make_room(self, size: int, needed: Piece) -> bool:
        limit = min(self.budget, self.bytes + self._room() - LEFT_FREE)
        if size > limit:
            return False
        while self.bytes + size > limit:
            if not self._drop_oldest(needed):
                return False
        return True

    def give_back(self, size: int) -> int:
        """Forget at least `size` bytes, oldest ends first, as far as there are so many; how many it was."""
        before = self.bytes
        while before - self.bytes < size and self._drop_oldest():
            pass
        return before - self.bytes

    def _drop_oldest(self, needed: Piece | None = None) -> bool:
        ends = (piece for piece in self._pieces if not piece.children and piece is not needed)
        oldest = min(ends, key=lambda piece: piece.last_used, default=None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, piece: Piece) -> None:
        assert piece.parent is not None
        del piece.parent.children[piece.start, int(piece.tokens[0])]
        self._pieces.discard(piece)
        self.bytes -= piece.data.nbytes
        self.dropped += 1

"""llama.cpp's cells by sequence, so that what a sequence holds is really there until it is removed.

Where a model has a sliding window, llama.cpp takes a cell for free once it has left the window of the only
sequence it belongs to, although the sequence may be cut back to it, or another one branch off before it. A
cell that belongs to two sequences is never taken: there every sequence gets a twin that holds the same cells
and never computes. Guarantees then as elsewhere: a cell is freed by `remove` alone.
"""

from __future__ import annotations

from typing import Any

from llm_engine.runner.library import lib


class Cells:
    """`twins`: how many sequences have a twin, which is the sequence that many ids further on; 0 for none."""

    def __init__(self, memory: Any, twins: int = 0) -> None:
        self._memory = memory
        self._twins = twins

    def filled(self, sequence: int) -> None:
        """A decode has just given cells to this sequence: no other decode may come before this."""
        if self._twins:
            lib.llama_memory_seq_cp(self._memory, sequence, sequence + self._twins, -1, -1)

    def copy(self, source: int, sequence: int, start: int, end: int) -> None:
        """Let a sequence share the cells of another one's positions [start, end)."""
        lib.llama_memory_seq_cp(self._memory, source, sequence, start, end)
        if self._twins:
            lib.llama_memory_seq_cp(self._memory, source, sequence + self._twins, start, end)

    def remove(self, sequence: int, start: int = -1, end: int = -1) -> bool:
        """Forget positions [start, end), -1 being the beginning or the end; False where they cannot be."""
        if self._twins:
            lib.llama_memory_seq_rm(self._memory, sequence + self._twins, start, end)
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, start, end))

    def shift(self, sequence: int, start: int, by: int) -> None:
        """Move all positions from `start` on; the twin's cells are the same ones and move with them."""
        lib.llama_memory_seq_add(self._memory, sequence, start, -1, by)

    @property
    def can_shift(self) -> bool:
        return bool(lib.llama_memory_can_shift(self._memory))

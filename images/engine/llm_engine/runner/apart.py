"""A second, small context in which one prompt at a time is read, away from the cells of the others.

On a processor, attention looks at the mask of every cell in use for every token it reads: a prompt read
beside seven conversations costs up to twice what it costs alone. To copy its cells afterwards costs a
hundredth of that. Made when it is first worth it, from memory that nobody needs. Guarantees: what is read
here counts as cells of its sequence from the start, so there is room for it when it moves; nobody is offered
a prefix that has not moved yet; where anything fails, the prompt is read in the main context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_engine.runner.branch import Branch
from llm_engine.runner.cache import Cache
from llm_engine.runner.library import lib
from llm_engine.runner.model import Context, LoadError, Model
from llm_engine.runner.room import available_ram
from llm_engine.runner.seqstate import read_state, write_state

# Fewer tokens than this, or fewer cells of others, are not worth the copies.
LEAST = 64
BESIDE = 512
# The longest prompt that is read here, in tokens.
CELLS = 2048
# This much main memory is left to others; compute buffers come out of it.
LEFT_FREE = 512 << 20
READS, _LEAVES = 0, 1


class Apart:
    """At most one branch is here; `Branch.apart` says since which token."""

    def __init__(
        self,
        model: Model,
        main: Context,
        cache: Cache,
        *,
        cells: int = CELLS,
        least: int = LEAST,
        beside: int = BESIDE,
        room: Callable[[], int] = available_ram,
    ) -> None:
        self._model = model
        self._main = main
        self._cache = cache
        self._cells = min(cells, main.cells)
        self.least = least
        self.beside = beside
        self._room = room
        self._context: Context | None = None
        self._broken = False
        self.branch: Branch | None = None
        self.moved = 0
        """Tokens that were read here and went into the main cells."""

    @property
    def handle(self) -> Any:
        assert self._context is not None
        return self._context.handle

    def take(self, branch: Branch) -> bool:
        """Whether this branch is read here, from now on if it is worth it and nobody else is."""
        if branch is self.branch:
            return True
        if self.branch is not None or branch.media or branch.count > self._cells:
            return False
        others = self._cache.used - branch.computed
        if branch.pending < self.least or others < self.beside or not self._open():
            return False
        if branch.computed and not self._bring(branch):
            return False
        self.branch = branch
        branch.apart = branch.computed
        return True

    def _open(self) -> bool:
        if self._context is None and not self._broken:
            if self._room() < LEFT_FREE + self._cells * self._main.cell_bytes:
                return False
            try:
                self._context = Context(self._model, cells=self._cells, batch=self._main.batch, sequences=2)
            except LoadError:
                self._broken = True
        return self._context is not None

    def _bring(self, branch: Branch) -> bool:
        data = self._cache.lift(branch.sequence, 0, branch.computed)
        done = data is not None and write_state(self.handle, READS, data)
        if not done:
            self._clear()
        return done

    def leave(self, branch: Branch, *, keep: bool = True) -> bool:
        """The branch goes on in the main cells; False where what it read here is lost."""
        assert self._context is not None
        start, branch.apart = branch.apart, -1
        self.branch = None
        read = branch.computed - start
        done = keep and self._move(branch, start)
        self._clear()
        if done:
            self.moved += read
            return True
        self._cache.wrote(branch.sequence, -read)
        branch.computed = start
        if keep:
            self._break()
        return False

    def _move(self, branch: Branch, start: int) -> bool:
        assert self._context is not None
        if branch.computed == start:
            return True
        lib.llama_memory_seq_cp(self._context.memory, READS, _LEAVES, start, branch.computed)
        data = read_state(self.handle, _LEAVES)
        return data is not None and self._cache.lay(branch.sequence, start, branch.computed, data)

    def _clear(self) -> None:
        assert self._context is not None
        lib.llama_memory_clear(self._context.memory, False)

    def give_up(self, branch: Branch) -> None:
        """llama.cpp failed here: this branch, and all later ones, are read in the main context."""
        self.leave(branch, keep=False)
        self._break()

    def _break(self) -> None:
        """What fails once would fail for the next prompt, too."""
        self._broken = True
        self.free()

    def free(self) -> int:
        """Give the memory back while nobody is here; how many bytes of cells it was."""
        if self._context is None or self.branch is not None:
            return 0
        size = self._cells * self._main.cell_bytes
        self._context.free()
        self._context = None
        return size

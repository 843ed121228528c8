"""A second, small context in which one prompt at a time is read, away from the cells of the others.

On a processor, attention looks at the mask of every cell in use for every token it reads: a prompt read
beside seven conversations costs up to twice what it costs alone. To copy its cells afterwards costs a
hundredth of that. Made when it is first worth it, from memory that nobody needs.

Where streams run, both go on at once, each with half of the threads: nobody waits for the other, and none of
the threads for the rest of its own kind, which was an eighth of the time (two threads, eight streams).

Guarantees: what is read here counts as cells of its sequence from the start, so there is room for it when it
moves; nobody is offered a prefix that has not moved yet; where anything fails, the prompt is read in the main
context; whoever leaves does not wait for what is being computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

from llm_engine.runner.batch import Batch
from llm_engine.runner.branch import Branch
from llm_engine.runner.cache import Cache
from llm_engine.runner.library import lib
from llm_engine.runner.model import Context, LoadError, Model
from llm_engine.runner.pace import PIECE
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
    """At most one branch is here; `Branch.apart` says since which token. One thread calls all methods."""

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
        at_once: bool = True,
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
        self.threads = main.threads // 2 if at_once else 0
        """How many compute here while streams run; none: one after the other."""
        self.batch = Batch(main.batch)
        self._thread = ThreadPoolExecutor(1, "apart")
        self._reading: Future[tuple[int, int]] | None = None
        self._hurry = Event()
        self.piece = PIECE
        self.moved = 0
        """Tokens that were read here and went into the main cells."""
        self.flown = 0
        """Tokens that were read here while streams went on."""

    @property
    def handle(self) -> Any:
        assert self._context is not None
        return self._context.handle

    def suits(self, branch: Branch) -> bool:
        """Whether it is worth reading a branch here. One that is told of its prompt needs the logits of each
        token at once.
        """
        if self._broken or branch.media or branch.tells_prompt or branch.count > self._cells:
            return False
        return branch.pending >= self.least and self._cache.used - branch.computed >= self.beside

    def take(self, branch: Branch) -> bool:
        """Whether this branch is read here, from now on if it is worth it and nobody else is."""
        if branch is self.branch:
            return True
        if self.branch is not None or self.busy or not self.suits(branch) or not self.open():
            return False
        if branch.computed and not self._bring(branch):
            self._break()
            return False
        self.branch = branch
        branch.apart = branch.computed
        return True

    # While streams run

    @property
    def busy(self) -> bool:
        """Whether its half of the threads computes, or did and nobody has looked yet."""
        return self._reading is not None

    @property
    def flying(self) -> Branch | None:
        """Whose tokens are being computed while the streams go on."""
        return self.branch if self.busy else None

    def next(self, readers: Iterable[Branch]) -> Branch | None:
        """Who could be read here while streams go on: who is here, or the first for whom it is worth it."""
        if self.branch is not None:
            return self.branch
        return next((branch for branch in readers if self.suits(branch) and self.open()), None)

    def begin(self) -> None:
        """Compute what is in the batch; returns at once."""
        assert self._context is not None
        self._context.compute_with(self.threads)
        self._hurry.clear()
        self._reading = self._thread.submit(self._pieces)

    def _pieces(self) -> tuple[int, int]:
        """Piece by piece, as somebody may want to have the threads soon; the verdict and how many tokens."""
        size, done, verdict = self.batch.size, 0, 0
        while done < size and not self._hurry.is_set():
            end = size if size - done <= self.piece * 4 // 3 else done + self.piece
            verdict = int(lib.llama_decode(self.handle, self.batch.view(done, end)))
            if verdict != 0:
                break
            done = end
        return verdict, done

    def end(self, *, soon: bool) -> tuple[int, int] | None:
        """llama.cpp's verdict on that batch, and how many of its tokens are computed; None while it goes on,
        or if nobody wants it any more. `soon`: wait, no longer than for the piece that is being computed.
        """
        if self._reading is None or not (soon or self._reading.done()):
            return None
        self._hurry.set()
        found = self._reading.result()
        self._reading = None
        self.flown += found[1]
        if self.branch is None:
            self._clear()
            return None
        return found

    def decode(self) -> int:
        """Compute what is in the batch, with all threads."""
        assert self._context is not None
        self._context.compute_with(self._context.threads)
        return self.batch.decode(self.handle)

    def open(self) -> bool:
        """Whether there is a context to read in, or could be made."""
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
        self._hurry.set()
        keep = keep and not self.busy
        read = branch.computed - start
        done = keep and self._move(branch, start)
        if not self.busy:
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
        if self.branch is None:
            self.end(soon=True)
        if self._context is None or self.branch is not None:
            return 0
        size = self._cells * self._main.cell_bytes
        self._context.free()
        self._context = None
        return size

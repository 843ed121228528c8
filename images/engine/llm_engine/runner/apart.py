"""A second, small context in which one prompt at a time is read, away from the cells of the others.

On a processor, attention looks at the mask of every cell in use for every token it reads: a prompt read
beside seven conversations costs up to twice what it costs alone. To copy its cells afterwards costs a
hundredth of that. Made when it is first worth it, from memory that nobody needs.

Where streams run, both go on at once, each with half of the threads: nobody waits for the other, and none of
the threads for the rest of its own kind, which was an eighth of the time (two threads, eight streams).

Guarantees: what is read here moves to the main cells batch by batch, and others are offered what has moved;
there is room for it there; where anything fails, the prompt is read in the main context; whoever leaves does
not wait for what is being computed, and loses no more than that.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
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


@dataclass(frozen=True)
class Flown:
    """What came of a batch that was computed while streams went on: llama.cpp's verdict, how many of its
    tokens are computed, and how long that took.
    """

    verdict: int
    tokens: int
    seconds: float


class Apart:
    """At most one branch is here; `Branch.apart` says up to which token the main cells hold it. The loop's
    thread calls all methods; between `begin` and `fetch`, batch and context belong to a thread of our own.
    """

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
        self._flights: SimpleQueue[Future[Flown]] = SimpleQueue()
        self._flight: Future[Flown] | None = None
        self._hurry = Event()
        self._flown_before = False
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
        if self.branch is not None or self.busy or not self.suits(branch) or not self._ready():
            return False
        if branch.computed and not self._bring(branch):
            self._break("a prefix could not be copied there")
            return False
        self.branch = branch
        branch.apart = branch.computed
        return True

    # While streams run: a flight

    @property
    def busy(self) -> bool:
        """Whether a flight is in the air, or nobody has fetched what came of it."""
        return self._flight is not None

    @property
    def flying(self) -> Branch | None:
        """Whose flight it is; none if that branch has left."""
        return self.branch if self.busy else None

    @property
    def computing(self) -> int:
        """How many threads compute here now."""
        return self.threads if self._flight is not None and not self._flight.done() else 0

    def choose(self, readers: Iterable[Branch]) -> Branch | None:
        """The first for whom it is worth it; who is here is always among them."""
        chosen = next((branch for branch in readers if branch is self.branch or self.suits(branch)), None)
        return chosen if chosen is None or self._ready() else None

    def begin(self) -> None:
        """Compute what is in the batch; returns at once."""
        assert self._context is not None
        self._context.compute_with(self.threads)
        if not self._flown_before:
            self._flown_before = True
            Thread(target=self._pilot, name="apart", daemon=True).start()
        self._hurry.clear()
        self._flight = Future()
        self._flights.put(self._flight)

    def _pilot(self) -> None:
        while True:
            flight = self._flights.get()
            try:
                flight.set_result(self._fly())
            except Exception:  # noqa: BLE001 - it fails this flight alone
                traceback.print_exc()
                flight.set_result(Flown(-1, 0, 0.0))

    def _fly(self) -> Flown:
        """Piece by piece, as somebody may want to have the threads soon."""
        started = time.monotonic()
        size, done, verdict = self.batch.size, 0, 0
        while done < size and not self._hurry.is_set():
            end = size if size - done <= self.piece * 4 // 3 else done + self.piece
            verdict = int(lib.llama_decode(self.handle, self.batch.view(done, end)))
            if verdict != 0:
                break
            done = end
        return Flown(verdict, done, time.monotonic() - started)

    def hurry(self) -> None:
        """What is in the air ends with the piece that is being computed."""
        self._hurry.set()

    def fetch(self, *, wait: bool) -> Flown | None:
        """What came of the flight; None while it is in the air, or if whose it was has left. `wait`: for the
        piece that is being computed, no longer.
        """
        if self._flight is None or not (wait or self._flight.done()):
            return None
        self._hurry.set()
        flight, self._flight = self._flight, None
        flown = flight.result()
        if self.branch is None:
            self._clear()
            return None
        self.flown += flown.tokens
        return flown

    # While nothing else is computed

    def decode(self) -> int:
        """Compute what is in the batch, with all threads."""
        assert self._context is not None
        self._context.compute_with(self._context.threads)
        return self.batch.decode(self.handle)

    # Coming and going

    def _ready(self) -> bool:
        """Whether there is a context to read in, or could be made."""
        if self._context is None and not self._broken:
            if self._room() < LEFT_FREE + self._cells * self._main.cell_bytes:
                return False
            try:
                self._context = Context(self._model, cells=self._cells, batch=self._main.batch, sequences=2)
            except LoadError as error:
                self._break(str(error))
        return self._context is not None

    def _bring(self, branch: Branch) -> bool:
        data = self._cache.lift(branch.sequence, 0, branch.computed)
        done = data is not None and write_state(self.handle, READS, data)
        if not done:
            self._clear()
        return done

    def move(self, branch: Branch) -> bool:
        """Copy what was read since the last time to the main cells; False where that is lost."""
        start, read = branch.apart, branch.computed - branch.apart
        if read and not self._copy(branch.sequence, start, branch.computed):
            self._cache.wrote(branch.sequence, -read)
            branch.computed = start
            self.leave(branch)
            self._break("what was read could not be copied to the main cells")
            return False
        branch.apart = branch.computed
        self.moved += read
        return True

    def _copy(self, sequence: int, start: int, end: int) -> bool:
        assert self._context is not None
        lib.llama_memory_seq_rm(self._context.memory, _LEAVES, -1, -1)
        lib.llama_memory_seq_cp(self._context.memory, READS, _LEAVES, start, end)
        data = read_state(self.handle, _LEAVES)
        return data is not None and self._cache.lay(sequence, start, end, data)

    def leave(self, branch: Branch) -> None:
        """The branch is over, or goes on in the main cells, with what has moved there."""
        branch.apart = -1
        self.branch = None
        self._hurry.set()
        if not self.busy:
            self._clear()

    def _clear(self) -> None:
        assert self._context is not None
        lib.llama_memory_clear(self._context.memory, False)

    def give_up(self, branch: Branch, verdict: int) -> None:
        """llama.cpp failed here: this branch, and all later ones, are read in the main context."""
        self.leave(branch)
        self._break(f"llama_decode returned {verdict}")

    def _break(self, why: str) -> None:
        """What fails once would fail for the next prompt, too."""
        print(f"no prompts are read apart any more: {why}", file=sys.stderr, flush=True)
        self._broken = True
        self.free()

    def free(self) -> int:
        """Give the memory back while nobody is here; how many bytes of cells it was."""
        if self.branch is None:
            self.fetch(wait=False)
        if self._context is None or self.branch is not None or self.busy:
            return 0
        size = self._cells * self._main.cell_bytes
        self._context.free()
        self._context = None
        return size

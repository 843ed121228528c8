"""The context's cells: which sequence holds what, and what may be forgotten to make room.

Joins the radix tree (what is known) with llama.cpp's memory (what is stored): every change to one is made to
the other here and nowhere else. Where a model's memory can be cut at will this gives prefix sharing by
reference; where it cannot, sequences keep to themselves (`sharing` is False), only a whole sequence is ever
dropped, and what others may go on from is copied (`checkpoints`). What leaves the cells is parked in main
memory where there is a budget for it, and comes back from there.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_engine.runner.cells import Cells
from llm_engine.runner.checkpoints import Checkpoints
from llm_engine.runner.model import Context
from llm_engine.runner.parking import WORTH_PARKING, Parking
from llm_engine.runner.prefix import Cut, PrefixTree
from llm_engine.runner.seqstate import Bytes, read_state, state_size, write_state
from llm_engine.runner.states import States
from llm_engine.runner.vocab import TokenArray

# Trimming a few cells at a time would scan the cache every turn for nothing.
TRIM = 256
# So many bytes are parked in one turn while others wait for their next token.
PIECE_BYTES = 16 << 20


class Cache:
    """Hands out sequence ids and keeps count of cells."""

    def __init__(
        self,
        context: Context,
        *,
        sharing: bool,
        stateful: bool = False,
        parking: int = 0,
        idle: int | None = None,
        scratch: bool = False,
        twins: bool = False,
    ) -> None:
        self._states = States() if stateful else None
        self.checkpoints = Checkpoints(parking) if stateful and parking > 0 else None
        self._handle = context.handle
        self.cells = context.cells
        self.sharing = sharing
        self.tree = PrefixTree()
        sequences = context.sequences // 2 if twins else context.sequences
        self._cells = Cells(context.memory, sequences if twins else 0)
        self._free = list(range(sequences - 1, -1, -1))
        self.parking = Parking(parking) if parking > 0 and sharing else None
        self._scratch = self._free.pop(0) if self.parking is not None or scratch else -1
        """A sequence that holds cells only while they are copied out or in."""
        self._idle_limit = context.cells if idle is None or self.parking is None else idle
        self._settled = True
        self.piece = max(WORTH_PARKING, PIECE_BYTES // max(1, context.cell_bytes))
        """Tokens that are parked in one turn while others wait."""
        self.restored = 0
        self._private: dict[int, int] = {}
        """Cells of running sequences that the tree does not know."""
        self.evictions = 0

    @property
    def used(self) -> int:
        idle = self._states.cells if self._states is not None else 0
        return self.tree.cells + idle + sum(self._private.values())

    @property
    def mode(self) -> str:
        """What an earlier request is good for; see `messages.RunnerInfo.cache_mode`."""
        if self._states is not None:
            return "checkpoint"
        return "prefix" if self.sharing else "none"

    @property
    def can_shift(self) -> bool:
        return self.sharing and self._cells.can_shift

    @property
    def sequences(self) -> int:
        return len(self.tree.tails)

    @property
    def active_cells(self) -> int:
        """Cells that running sequences stand on."""
        running = self.tree.running
        shared = sum(len(node.tokens) for node in self.tree.nodes() if node.holders & running)
        return shared + sum(self._private.values())

    def foresee(self, tokens: TokenArray, snap: Callable[[int], int]) -> tuple[int, int]:
        """What `open` would give: how many tokens, and how many cells more running sequences would stand on
        then. Changes nothing, so a prompt that does not fit yet costs nobody his cells.
        """
        if self._states is not None:
            copy = self.checkpoints.find(tokens[:-1]) if self.checkpoints is not None else None
            state = self._states.find(tokens[:-1], copy[0] if copy is not None else 0)
            length = state[1] if state is not None else copy[0] if copy is not None else 0
            return length, length
        found = self.tree.match(tokens[:-1]) if self.sharing else None
        length = snap(found.length) if found else 0
        return length, self.tree.resting(tokens[:length])

    def open(self, tokens: TokenArray, snap: Callable[[int], int]) -> tuple[int, int] | None:
        """A sequence that already holds the longest cached prefix of `tokens`: (id, length).

        None where no sequence is free.

        The last token is left to compute even where it is cached: its logits are not. `snap` may shorten the
        prefix.
        """
        if self._states is not None:
            copy = self.checkpoints.find(tokens[:-1]) if self.checkpoints is not None else None
            taken = self._states.take(tokens[:-1], copy[0] if copy is not None else 0)
            if taken is not None:
                self.tree.add(taken[0], running=True)
                self._private[taken[0]] = taken[1]
                return taken
            if copy is not None:
                return self._from_copy(*copy)
        found = self.tree.match(tokens[:-1]) if self.sharing else None
        if not self._free:
            protect = found.source if found else -1
            self._drop_one(protect)
            if not self._free:
                return None
        sequence = self._free.pop()
        self.tree.add(sequence, running=True)
        self._private[sequence] = 0
        length = snap(found.length) if found else 0
        if found is None or length == 0:
            return sequence, 0
        self._cells.copy(found.source, sequence, 0, length)
        self.tree.extend(sequence, tokens[:length])
        return sequence, length

    def _from_copy(self, length: int, data: Bytes) -> tuple[int, int] | None:
        """A sequence with the state that was copied after `length` tokens."""
        if not self._free:
            self._drop_one(-1)
        if not self._free:
            return None
        sequence = self._free.pop()
        if not self.make_room(length):
            length = 0
        elif not write_state(self._handle, sequence, data):
            self._cells.remove(sequence)
            length = 0
        self.tree.add(sequence, running=True)
        self._private[sequence] = length
        return sequence, length

    def places(self, tokens: TokenArray) -> list[int]:
        """Where the reading of a prompt is to stop for a copy of the state."""
        if self.checkpoints is None or self._states is None:
            return []
        return self.checkpoints.places(tokens, self._states.read())

    def copy(self, sequence: int, tokens: TokenArray) -> None:
        """Keep a copy of the state that a sequence has after exactly `tokens`."""
        if self.checkpoints is None:
            return
        size = state_size(self._handle, sequence)
        self.checkpoints.keep(tokens, size, lambda: read_state(self._handle, sequence))

    def known(self, tokens: TokenArray) -> int:
        """How many leading tokens need not be computed, in cells or parked."""
        found = self.tree.match(tokens)
        parked = self.parking.match(tokens) if self.parking is not None else 0
        return max(found.length if found else 0, parked)

    def restore(self, sequence: int, tokens: TokenArray, length: int, snap: Callable[[int], int]) -> int:
        """Bring back what is parked of `tokens` beyond the `length` this sequence has; how many it has
        then.
        """
        if self.parking is None:
            return length
        wanted = snap(self.parking.match(tokens[:-1]))
        if wanted - length < WORTH_PARKING:
            return length
        chain = self.parking.chain(tokens[:wanted], length)
        if not self.make_room(sum(len(piece.tokens) for piece, _ in chain)):
            return length
        have = length
        for piece, upto in chain:
            if not self.lay(sequence, have, upto, piece.data):
                break
            have = upto
        self.wrote(sequence, have - length)
        self.publish(sequence, tokens[length:have])
        self.restored += have - length
        return have

    def _park(self, sequence: int, upto: int | None = None) -> bool:
        """Keep a copy of what an idle sequence holds, `upto` a token or all of it, before it is forgotten;
        whether there was anything to keep, and room for it.
        """
        if self.parking is None:
            return False
        tokens = self.tree.tokens(sequence)[:upto]
        return self.parking.park(tokens, lambda start, fits: self.lift(sequence, start, len(tokens), fits))

    def lift(
        self, sequence: int, start: int, end: int, fits: Callable[[int], bool] = lambda _size: True
    ) -> Bytes | None:
        """A copy of what the cells of tokens [start, end) hold; None where `fits` does not want one of that
        size, or llama.cpp could not make it.
        """
        self._cells.copy(sequence, self._scratch, start, end)
        wanted = fits(state_size(self._handle, self._scratch))
        data = read_state(self._handle, self._scratch) if wanted else None
        self._cells.remove(self._scratch)
        return data

    def lay(self, sequence: int, start: int, end: int, data: Bytes) -> bool:
        """Give a sequence the cells of tokens [start, end) out of a copy that holds at least those; False,
        and no change, where llama.cpp found no room.
        """
        done = write_state(self._handle, self._scratch, data)
        if done:
            self._cells.copy(self._scratch, sequence, start, end)
        self._cells.remove(self._scratch)
        return done

    @property
    def parked(self) -> tuple[int, int]:
        """Tokens and bytes that main memory holds of idle prefixes."""
        held = self.parking or self.checkpoints
        return (held.tokens, held.bytes) if held is not None else (0, 0)

    def unpark(self, size: int) -> int:
        """Forget at least so many of those bytes, as far as there are any; how many it was."""
        held = self.parking or self.checkpoints
        return held.give_back(size) if held is not None else 0

    def settle(self, *, in_pieces: bool = False) -> None:
        """Before computing: park the idle sequences that would make it slower, oldest first; `in_pieces`: a
        part of them now, and the rest in the turns that follow.
        """
        if self._settled:
            return
        parking, left = self.parking, self.piece
        while (idle := self.used - self.active_cells) > self._idle_limit:
            victim = self.tree.oldest()
            if not in_pieces or parking is None or victim is None:
                self.evict(idle - self._idle_limit)
                break
            tokens = self.tree.tokens(victim)
            known = parking.match(tokens)
            upto = min(len(tokens), known + left)
            if self._park(victim, upto):
                left -= upto - known
                if upto < len(tokens) or left < WORTH_PARKING:
                    return
            self._apply(self.tree.trim(victim, idle - self._idle_limit))
        self._settled = True

    def _drop_one(self, protect: int) -> None:
        if self._states is not None and (oldest := self._states.drop()) is not None:
            self._cells.remove(oldest)
            self._free.append(oldest)
            self.evictions += 1
            return
        running = self.tree.running
        running_before = protect in running
        if protect >= 0 and not running_before:
            running.add(protect)
        victim = self.tree.oldest()
        if protect >= 0 and not running_before:
            running.discard(protect)
        if victim is not None:
            self._park(victim)
            self._apply(self.tree.drop(victim))

    def wrote(self, sequence: int, count: int) -> None:
        """`count` more cells of a sequence are filled, unknown to the tree."""
        self._private[sequence] += count
        self._cells.filled(sequence)

    def publish(self, sequence: int, tokens: TokenArray) -> None:
        """Let others share `tokens`, which are the next that this sequence has computed."""
        if not self.sharing or not len(tokens):
            return
        self._private[sequence] -= len(tokens)
        for overlap in self.tree.extend(sequence, tokens):
            # Somebody else stored the same tokens: use theirs, free ours.
            self._cells.remove(sequence, overlap.start, overlap.end)
            self._cells.copy(overlap.source, sequence, overlap.start, overlap.end)

    def rewind(self, sequence: int, length: int, dropped: int) -> bool:
        """Forget the last `dropped` private cells, leaving `length`."""
        if not self._cells.remove(sequence, length):
            return False
        self._private[sequence] -= dropped
        return True

    def discard_from(self, sequence: int, length: int) -> bool:
        """Forget cells from `length` on that were never counted: those of a batch that failed half-way.

        False where the memory is a state that has gone on already.
        """
        return self._cells.remove(sequence, length)

    def shift(self, sequence: int, keep: int, dropped: int) -> bool:
        """Forget `dropped` tokens after the first `keep` and move the rest down; False where it cannot be.

        Moving changes cells in place, so it is refused while another sequence stands on any of them.
        """
        if not self.can_shift:
            return False
        known = self.tree.length(sequence)
        if known > keep:
            if not self.tree.truncate(sequence, keep):
                return False
            self._private[sequence] += known - keep
        self._cells.remove(sequence, keep, keep + dropped)
        self._cells.shift(sequence, keep + dropped, -dropped)
        self._private[sequence] -= dropped
        return True

    def close(self, sequence: int, *, keep: bool, tokens: TokenArray | None = None) -> None:
        """A running sequence is over; what the tree knows of it is kept for later if `keep`.

        `tokens` are all it has computed; a state is kept by them.
        """
        self._settled = False
        if self._states is not None and keep and tokens is not None and len(tokens):
            del self._private[sequence]
            self.tree.remove(sequence)
            self._states.keep(sequence, tokens)
            return
        known = self.tree.length(sequence)
        if self._private.pop(sequence):
            if known:
                self._cells.remove(sequence, known)
            else:
                self._cells.remove(sequence)
        if keep and self.sharing and self.tree.retire(sequence):
            return
        if sequence in self.tree.tails:
            self.tree.remove(sequence)
        self._cells.remove(sequence)
        self._free.append(sequence)

    def make_room(self, cells: int) -> bool:
        """Forget what was used least recently until `cells` are free. False: running sequences hold too
        many.
        """
        missing = self.used + cells - self.cells
        if missing <= 0:
            return True
        self.evict(max(missing, TRIM))
        return self.used + cells <= self.cells

    def evict(self, cells: int) -> int:
        """Forget about `cells` cells of idle sequences; tells how many that freed."""
        before = self.used
        while self._states is not None and before - self.used < cells and len(self._states):
            self._drop_one(-1)
        while (missing := cells - (before - self.used)) > 0 and (victim := self.tree.oldest()) is not None:
            self._park(victim)
            self._apply(self.tree.trim(victim, missing))
        return before - self.used

    def _apply(self, cut: Cut) -> None:
        self.evictions += 1
        if cut.gone:
            self._cells.remove(cut.sequence)
            self._free.append(cut.sequence)
        else:
            self._cells.remove(cut.sequence, cut.start)

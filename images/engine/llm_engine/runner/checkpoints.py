"""Copies of the state of models whose memory cannot be cut, at places where other prompts will go on.

Such a state cannot be taken back to an earlier token, so it is copied at two places while a prompt is read:
before its last token (the same prompt again, or the next turn of its conversation, goes on there, whatever
was answered), and where it leaves what an earlier prompt has in common with it (a third one that begins so
goes on there). Copies lie in main memory. Guarantees: a copy is only ever given to a prompt that begins with
exactly its tokens; all copies together keep to the budget, the least recently used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from llm_engine.runner.prefix import common_prefix
from llm_engine.runner.room import available_ram
from llm_engine.runner.seqstate import Bytes
from llm_engine.runner.vocab import TokenArray

# Fewer tokens are read again sooner than a state is copied.
WORTH_COPYING = 16
# What is copied leaves this much main memory to others, whatever the budget says.
LEFT_FREE = 256 << 20


class Checkpoints:
    """Copies by their tokens."""

    def __init__(self, budget: int, room: Callable[[], int] = available_ram) -> None:
        self.budget = budget
        self.bytes = 0
        self._room = room
        self._kept: OrderedDict[bytes, tuple[TokenArray, Bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        return sum(len(tokens) for tokens, _ in self._kept.values())

    def find(self, prompt: TokenArray) -> tuple[int, Bytes] | None:
        """The copy that has seen the most of the prompt's beginning and nothing else; marks it as used."""
        best, length = b"", 0
        for key, (tokens, _) in self._kept.items():
            if length < len(tokens) <= len(prompt) and common_prefix(tokens, prompt) == len(tokens):
                best, length = key, len(tokens)
        if not length:
            return None
        self._kept.move_to_end(best)
        return length, self._kept[best][1]

    def places(self, prompt: TokenArray, others: Iterable[TokenArray] = ()) -> list[int]:
        """Where to copy while `prompt` is read, given also what `others` have read."""
        last = len(prompt) - 1
        found = {last}
        known = [tokens for tokens, _ in self._kept.values()]
        found.add(max((common_prefix(tokens, prompt) for tokens in [*known, *others]), default=0))
        return sorted(place for place in found if WORTH_COPYING <= place <= last)

    def keep(self, tokens: TokenArray, size: int, copy: Callable[[], Bytes | None]) -> None:
        """Keep `size` bytes of state, which `copy` gives, unless it is kept already or there is no room."""
        key = tokens.tobytes()
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        limit = min(self.budget, self.bytes + self._room() - LEFT_FREE)
        if size > limit:
            return
        self.give_back(self.bytes + size - limit)
        data = copy()
        if data is not None:
            self._kept[key] = (tokens.copy(), data)
            self.bytes += data.nbytes

    def give_back(self, size: int) -> int:
        """Forget at least `size` bytes, oldest first, as far as there are so many; how many it was."""
        before = self.bytes
        while self._kept and before - self.bytes < size:
            _, (_, data) = self._kept.popitem(last=False)
            self.bytes -= data.nbytes
        return before - self.bytes

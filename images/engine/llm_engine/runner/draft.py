"""A small model that guesses for a large one of the same vocabulary.

The draft has a context of its own and follows each branch: what the branch took back, the draft forgets; what
it went on with, the draft reads, long prompts in pieces. A prefix that it has read for another branch, also
one that has ended, it takes over from there. All branches of a turn draft together, one decode per step. A
branch stops drafting where the draft itself is unsure, since a refused guess costs the large model a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llm_engine.runner.batch import Batch, logits_matrix
from llm_engine.runner.branch import Branch
from llm_engine.runner.library import lib
from llm_engine.runner.messages import LoadSpec
from llm_engine.runner.model import Context, LoadError, Model
from llm_engine.runner.prefix import common_prefix
from llm_engine.runner.vocab import TokenArray, Vocab

# Below this probability of its best token, the draft does not go on.
SURE = 0.4
# So many tokens of prompts the draft reads in one turn; a branch is not guessed for until its own are read.
READS = 256


@dataclass(eq=False)
class _Follower:
    sequence: int
    tokens: TokenArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    """What the draft's context holds."""


class Drafter:
    """Owned by the computing thread."""

    def __init__(self, spec: LoadSpec, target: Vocab, parallel: int, cells: int) -> None:
        """`cells`: what the large model has for all of its branches, which need no more here."""
        assert spec.draft is not None
        own = replace(spec, model_path=spec.draft, splits=(), adapters=(), mmproj=None, draft=None)
        self._model = Model(own, lambda _: True)
        vocab = Vocab(self._model.handle)
        if vocab.size != target.size or any(
            vocab.piece(token, special=True) != target.piece(token, special=True)
            for token in range(0, vocab.size, max(1, vocab.size // 997))
        ):
            raise LoadError(f"the draft model {spec.draft} has another vocabulary than the model")
        self._width = vocab.size
        batch = max(spec.num_batch, parallel)
        self._context = Context(
            self._model, cells=cells, batch=min(batch, cells), sequences=parallel, outputs=parallel
        )
        self._batch = Batch(self._context.batch)
        self._free = list(range(parallel))
        self._followers: dict[int, _Follower] = {}
        # What branches have in common lies here once for each of them, so that not all of them may fit.
        self._room = self._context.cells - parallel * (spec.draft_max + 1)
        self._ended: list[_Follower] = []
        """Those of branches that are over, oldest first: their prompts may come again."""
        self.read = 0
        """Tokens of branches that were computed, guesses aside."""

    def propose(self, wanted: Sequence[tuple[Branch, int]]) -> None:
        """Set the proposals of branches, each no longer than asked."""
        room = self.read + READS
        drafting = [
            (branch, limit)
            for branch, limit in wanted
            if limit > 0 and self._catch_up(branch, room - self.read)
        ]
        guesses: dict[int, list[int]] = {id(branch): [] for branch, _ in drafting}
        # Each follower lacks exactly its branch's last token now: that is what the first step feeds.
        feed = {id(branch): int(branch.tokens[branch.count - 1]) for branch, _ in drafting}
        while drafting:
            tokens = self._step(drafting, feed)
            drafting = [
                (branch, limit)
                for (branch, limit), token in zip(drafting, tokens, strict=True)
                if token is not None and self._keep(branch, token, guesses, feed) < limit
            ]
        for branch, _ in wanted:
            branch.proposal = guesses.get(id(branch), [])

    @staticmethod
    def _keep(branch: Branch, token: int, guesses: dict[int, list[int]], feed: dict[int, int]) -> int:
        guesses[id(branch)].append(token)
        feed[id(branch)] = token
        return len(guesses[id(branch)])

    def _catch_up(self, branch: Branch, most: int) -> bool:
        """Make the draft hold all of a branch but its last token, at most `most` tokens further; False where
        it does not yet, or cannot.
        """
        goal = branch.tokens[: branch.count - 1]
        if len(goal) and int(goal.min()) < 0:
            return False
        follower = self._followers.get(id(branch)) or self._follow(branch, goal)
        if follower is None or not self._fits(follower, len(goal)):
            self._drop(branch)
            return False
        at = common_prefix(follower.tokens, goal)
        lib.llama_memory_seq_rm(self._context.memory, follower.sequence, at, -1)
        upto = min(len(goal), at + max(0, most))
        while at < upto:
            part = goal[at : min(upto, at + self._batch.capacity)]
            self._batch.clear()
            self._batch.put(follower.sequence, at, part, outputs=0)
            if self._batch.decode(self._context.handle) != 0:
                self._drop(branch)
                return False
            at += len(part)
            self.read += len(part)
        follower.tokens = np.array(goal[:at], dtype=np.int32)
        return at == len(goal)

    def _fits(self, follower: _Follower, length: int) -> bool:
        """Whether it may become so long; those of branches that are over make way."""
        running = sum(len(other.tokens) for other in self._followers.values()) - len(follower.tokens)
        while self._ended and running + length + sum(len(o.tokens) for o in self._ended) > self._room:
            self._clear(self._ended.pop(0))
        return running + length <= self._room

    def _follow(self, branch: Branch, goal: TokenArray) -> _Follower | None:
        """Somebody new, with what another one has read of the same beginning."""
        best: _Follower | None = None
        shared = 0
        for other in (*self._ended, *self._followers.values()):
            length = common_prefix(other.tokens, goal)
            if length > shared:
                best, shared = other, length
        if best is not None and best in self._ended and (not self._free or 2 * shared >= len(best.tokens)):
            self._ended.remove(best)
            self._followers[id(branch)] = best
            return best
        if not self._free and self._ended:
            self._clear(self._ended.pop(0))
        if not self._free:
            return None
        made = self._followers[id(branch)] = _Follower(self._free.pop())
        if best is not None:
            lib.llama_memory_seq_cp(self._context.memory, best.sequence, made.sequence, 0, shared)
            made.tokens = np.array(goal[:shared], dtype=np.int32)
        return made

    def _step(self, drafting: list[tuple[Branch, int]], feed: dict[int, int]) -> list[int | None]:
        """One more token for each branch; None where the draft is unsure."""
        self._batch.clear()
        for branch, _ in drafting:
            follower = self._followers[id(branch)]
            token = np.array([feed[id(branch)]], dtype=np.int32)
            self._batch.put(follower.sequence, len(follower.tokens), token, outputs=1)
            follower.tokens = np.append(follower.tokens, token)
        if self._batch.decode(self._context.handle) != 0:
            for branch, _ in drafting:
                self._drop(branch)
            return [None] * len(drafting)
        logits = logits_matrix(self._context.handle, len(drafting), self._width)
        best = logits.argmax(axis=1)
        top = logits.max(axis=1, keepdims=True)
        sure = 1.0 / np.exp(logits - top).sum(axis=1) >= SURE
        return [int(token) if good else None for token, good in zip(best, sure, strict=True)]

    def forget(self, branch: Branch) -> None:
        """The branch is over; what was read of it may serve another one."""
        follower = self._followers.pop(id(branch), None)
        if follower is not None:
            self._ended.append(follower)

    def _drop(self, branch: Branch) -> None:
        """The context may hold anything of it now."""
        follower = self._followers.pop(id(branch), None)
        if follower is not None:
            self._clear(follower)

    def _clear(self, follower: _Follower) -> None:
        lib.llama_memory_seq_rm(self._context.memory, follower.sequence, -1, -1)
        self._free.append(follower.sequence)

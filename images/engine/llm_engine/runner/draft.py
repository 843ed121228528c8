"""A small model that guesses for a large one of the same vocabulary.

The draft has a context of its own and follows each branch: what the branch took back, the draft forgets; what
it went on with, the draft reads. All branches of a turn draft together, one decode per step. A branch stops
drafting where the draft itself is unsure, since a refused guess costs the large model a token.
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


@dataclass
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

    def propose(self, wanted: Sequence[tuple[Branch, int]]) -> None:
        """Set the proposals of branches, each no longer than asked."""
        drafting = [(branch, limit) for branch, limit in wanted if limit > 0 and self._catch_up(branch)]
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

    def _catch_up(self, branch: Branch) -> bool:
        """Make the draft hold all of a branch but its last token; False where it cannot."""
        follower = self._followers.get(id(branch))
        if follower is None:
            if not self._free:
                return False
            follower = self._followers[id(branch)] = _Follower(self._free.pop())
        goal = branch.tokens[: branch.count - 1]
        held = sum(len(other.tokens) for other in self._followers.values()) - len(follower.tokens)
        if (len(goal) and int(goal.min()) < 0) or held + len(goal) > self._room:
            self.forget(branch)
            return False
        shared = common_prefix(follower.tokens, goal)
        lib.llama_memory_seq_rm(self._context.memory, follower.sequence, shared, -1)
        at = shared
        while at < len(goal):
            part = goal[at : at + self._batch.capacity]
            self._batch.clear()
            self._batch.put(follower.sequence, at, part, outputs=0)
            if self._batch.decode(self._context.handle) != 0:
                self.forget(branch)
                return False
            at += len(part)
        follower.tokens = np.array(goal, dtype=np.int32)
        return True

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
                self.forget(branch)
            return [None] * len(drafting)
        logits = logits_matrix(self._context.handle, len(drafting), self._width)
        best = logits.argmax(axis=1)
        top = logits.max(axis=1, keepdims=True)
        sure = 1.0 / np.exp(logits - top).sum(axis=1) >= SURE
        return [int(token) if good else None for token, good in zip(best, sure, strict=True)]

    def forget(self, branch: Branch) -> None:
        follower = self._followers.pop(id(branch), None)
        if follower is not None:
            lib.llama_memory_seq_rm(self._context.memory, follower.sequence, -1, -1)
            self._free.append(follower.sequence)

"""Who waits, and for what.

First come, first served, but each further answer of a request stands as if it had come some requests later,
so that who asks for a hundred does not keep out who asks for one, and is not kept out for ever by those who
do. One exception delays nobody: a
request whose prompt begins with what a running request is reading at this moment waits for that to be
computed instead of computing it a second time, and requests behind it may pass.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llm_engine.runner.branch import Branch, State
from llm_engine.runner.prefix import common_prefix

# Below this many tokens computing them again is cheaper than a turn's wait.
WORTH_WAITING = 32
# So many later requests pass each further answer of one.
ROUND = 8


class Queue:
    """Branches that are not running."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: list[Branch] = []
        self._requests = 0

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.limit

    def add(self, branch: Branch) -> None:
        self._requests += branch.index == 0
        branch.place = self._requests + branch.index * ROUND
        at = len(self.waiting)
        while at and self.waiting[at - 1].place > branch.place:
            at -= 1
        self.waiting.insert(at, branch)

    def put_back(self, branch: Branch) -> None:
        """A branch that had to give up its place runs again before anyone younger."""
        at = 0
        while at < len(self.waiting) and self.waiting[at].arrived < branch.arrived:
            at += 1
        self.waiting.insert(at, branch)

    def follow(self, branch: Branch, running: Iterable[Branch], cached: int) -> bool:
        """Whether `branch` should wait for somebody who is reading a prefix of its prompt."""
        best, leader = cached + WORTH_WAITING, None
        if branch.uneven:
            return False
        ours = branch.tokens[: branch.count - 1]
        for other in running:
            if other.state is not State.READING or not other.gives:
                continue
            shared = common_prefix(ours, other.tokens[: other.count])
            if shared > max(best, other.computed):
                best, leader = shared, other
        branch.follows = leader
        branch.follow_upto = best if leader else 0
        return leader is not None

    def follow_twin(self, branch: Branch, running: Iterable[Branch]) -> bool:
        """Whether to wait for somebody who is reading the very same prompt."""
        ours = branch.tokens[: branch.count]
        for other in running:
            if other.state is not State.READING or not other.gives or other.media:
                continue
            if not branch.count == other.count > other.computed + 1:
                continue
            if branch.count > WORTH_WAITING and np.array_equal(ours, other.tokens[: other.count]):
                branch.follows, branch.follow_upto = other, other.count - 1
                return True
        return False

    def positions(self) -> list[tuple[Branch, int]]:
        """Branches whose place in the queue (from 1) is not the one they were told last."""
        changed = []
        for at, branch in enumerate(self.waiting, 1):
            if branch.index == 0 and branch.position_told != at:
                branch.position_told = at
                changed.append((branch, at))
        return changed

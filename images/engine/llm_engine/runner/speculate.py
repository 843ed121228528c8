"""Guessing the next tokens from the text itself, so that one decode may yield several.

A guess is only checked against what the sampler chooses anyway at each position, so the output is the same
with and without; only the time differs. How far to guess is learnt per branch: twice as far after a guess
that held, one token and a growing pause after one that did not, so text that never repeats itself costs next
to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_engine.runner.branch import Branch
from llm_engine.runner.draft import Drafter
from llm_engine.runner.vocab import TokenArray

_LONGEST_PAUSE = 64
_GRAM = 3


@dataclass
class _Trust:
    length: int = 2
    pause: int = 0
    misses: int = 0


def lookup(tokens: TokenArray, length: int, gram: int = _GRAM) -> list[int]:
    """What followed the last earlier place where the final `gram` tokens stood; at most `length` tokens."""
    end = len(tokens)
    if end <= gram or length <= 0:
        return []
    tail = tokens[end - gram :]
    hits = tokens[: end - gram] == tail[0]
    for i in range(1, gram):
        hits &= tokens[i : end - gram + i] == tail[i]
    places = np.flatnonzero(hits)
    if not len(places):
        return []
    start = int(places[-1]) + gram
    found: list[int] = tokens[start : min(end, start + length)].tolist()
    while found and len(found) < length:
        # The match overlaps the end: the text goes round in a circle, and so does the guess.
        found += found[: length - len(found)]
    return [] if found and min(found) < 0 else found


class Speculator:
    """Proposes for all writing branches of a turn: from the text where it repeats itself, else from the
    draft.
    """

    def __init__(self, most: int, drafter: Drafter | None = None, draft_most: int = 0) -> None:
        self._most = most
        self._drafter = drafter
        self._draft_most = draft_most if drafter is not None else 0
        self._trust: dict[int, _Trust] = {}

    def propose(self, writing: Sequence[Branch], n_ctx: int, room: int) -> None:
        """Set each branch's `proposal`, `room` tokens in all at most."""
        asking: list[tuple[Branch, int]] = []
        for branch in writing:
            branch.proposal = []
            limit = min(self._limit(branch, n_ctx), room)
            if limit <= 0:
                continue
            branch.proposal = lookup(branch.tokens[: branch.count], min(limit, self._most))
            if not branch.proposal and self._drafter is not None:
                asking.append((branch, min(limit, self._draft_most)))
                room -= min(limit, self._draft_most)
            room -= len(branch.proposal)
        if asking and self._drafter is not None:
            self._drafter.propose(asking)

    def _limit(self, branch: Branch, n_ctx: int) -> int:
        """How many tokens to guess for a branch now."""
        most = max(self._most, self._draft_most)
        if most <= 0 or branch.uneven:
            return 0
        trust = self._trust.setdefault(id(branch), _Trust())
        if trust.pause > 0:
            trust.pause -= 1
            return 0
        limit = min(trust.length, most, n_ctx - branch.count - 1)
        if branch.request.max_tokens >= 0:
            limit = min(limit, branch.request.max_tokens - branch.generated - 1)
        return limit

    def learn(self, branch: Branch, proposed: int, accepted: int) -> None:
        trust = self._trust.get(id(branch))
        if trust is None:
            return
        if accepted == proposed:
            trust.length = min(2 * trust.length, max(1, self._most, self._draft_most))
            trust.misses = 0
        elif 2 * accepted >= proposed:
            trust.length = max(1, accepted)
            trust.misses = 0
        else:
            trust.misses += 1
            trust.length = max(1, accepted)
            trust.pause = min(_LONGEST_PAUSE, 2**trust.misses)

    def forget(self, branch: Branch) -> None:
        self._trust.pop(id(branch), None)
        if self._drafter is not None:
            self._drafter.forget(branch)

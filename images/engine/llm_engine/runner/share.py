"""Whose prompt is read in this turn, and how much of it.

A batch that holds one prompt alone is the cheapest: a processor's attention works on tiles of 64 tokens, and
a tile that two sequences share looks at the cells of both. So one prompt gets the turn, others only what it
leaves. Whoever has waited longest and whoever has least left take turns at being first: no prompt starves,
and short ones are quick beside long ones.
"""

from __future__ import annotations

from llm_engine.runner.branch import Branch

TILE = 64
# The end of a prompt that is not worth a decode of its own.
CRUMB = 48


def order(reading: list[Branch], *, oldest_first: bool) -> list[Branch]:
    """Who comes first: whoever has least left, or before all whoever has waited longest."""
    by_rest = sorted(reading, key=lambda b: (b.pending, b.arrived))
    if oldest_first and reading:
        oldest = min(reading, key=lambda b: (b.arrived, b.index))
        by_rest.remove(oldest)
        by_rest.insert(0, oldest)
    return by_rest


def share(reading: list[Branch], budget: int, capacity: int, *, oldest_first: bool) -> None:
    """Set `fed` of every branch: about `budget` tokens in all, never more than `capacity`."""
    for branch in reading:
        branch.fed = 0
    if not reading:
        return
    given = 0
    for branch in order(reading, oldest_first=oldest_first):
        room = min(budget, capacity) - given
        if room <= 0:
            return
        if branch.reach <= min(room + CRUMB, capacity - given):
            branch.fed = branch.reach
        else:
            # Beside others only whole tiles; what is left over is not worth breaking one.
            branch.fed = room if given == 0 else room // TILE * TILE
        given += branch.fed

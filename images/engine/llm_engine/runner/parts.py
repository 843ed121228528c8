"""Whose tokens are where in a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llm_engine.runner.apart import READS
from llm_engine.runner.batch import Batch
from llm_engine.runner.branch import Branch


@dataclass(frozen=True)
class Part:
    """One branch's share of a batch: tokens [start, end), its first row of logits, and how many rows."""

    branch: Branch
    start: int
    end: int
    row: int
    rows: int


def fill(batch: Batch, branches: Iterable[Branch]) -> list[Part]:
    """Put the planned tokens of these branches into a batch."""
    batch.clear()
    parts = []
    for branch in branches:
        tokens = branch.tokens[branch.computed : branch.computed + branch.fed]
        last = branch.computed + branch.fed == branch.count
        if branch.proposal:
            tokens = np.append(tokens, np.array(branch.proposal, dtype=np.int32))
        rows = len(tokens) if branch.tells_prompt else (1 + len(branch.proposal)) if last else 0
        start = batch.size
        position = branch.position(branch.computed)
        sequence = branch.sequence if branch.apart < 0 else READS
        row = batch.put(sequence, position, tokens, outputs=rows)
        parts.append(Part(branch, start, batch.size, row, rows))
    return parts

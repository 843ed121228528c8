"""Which prompts a turn reads, without a model."""

from __future__ import annotations

import numpy as np
import pytest
from llm_engine.runner.branch import Branch
from llm_engine.runner.messages import GenerateRequest
from llm_engine.runner.pace import LEAST, PIECE, Pace
from llm_engine.runner.share import CRUMB, TILE, share


def reader(arrived: float, left: int) -> Branch:
    branch = Branch(0, 0, GenerateRequest(""), np.zeros(left, dtype=np.int32), 0, arrived, None)
    branch.begin()
    branch.reach = left
    return branch


def test_one_prompt_gets_the_turn() -> None:
    old, short = reader(1.0, 4000), reader(2.0, 300)
    share([short, old], 128, 512, oldest_first=True)
    assert (old.fed, short.fed) == (128, 0)
    share([short, old], 128, 512, oldest_first=False)
    assert (old.fed, short.fed) == (0, 128)


def test_what_one_leaves_goes_to_others_in_whole_tiles() -> None:
    ending, long = reader(1.0, 20), reader(2.0, 4000)
    share([ending, long], 256, 512, oldest_first=True)
    assert ending.fed == 20
    assert long.fed == (256 - 20) // TILE * TILE


def test_a_crumb_is_read_along_but_not_beyond_the_batch() -> None:
    alone = reader(1.0, 128 + CRUMB)
    share([alone], 128, 512, oldest_first=True)
    assert alone.fed == 128 + CRUMB
    share([alone], 128, 140, oldest_first=True)
    assert alone.fed == 128


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize("budget", [1, 16, 63, 64, 100, 512])
def test_something_is_always_read_and_never_too_much(budget: int, oldest_first: bool) -> None:
    readers = [reader(float(i), left) for i, left in enumerate((7, 500, 64, 1, 129))]
    share(readers, budget, 512, oldest_first=oldest_first)
    given = sum(branch.fed for branch in readers)
    assert 0 < given <= min(512, budget + CRUMB)
    assert all(0 <= branch.fed <= branch.reach for branch in readers)


def test_nobody_starves() -> None:
    """New short prompts arrive all the time; the long one is read all the same."""
    long = reader(0.0, 2000)
    for turn in range(60):
        share([long, reader(1.0 + turn, 128)], 128, 512, oldest_first=turn % 2 == 0)
        long.computed += long.fed
        long.reach = long.count - long.computed
        if not long.reach:
            return
    pytest.fail(f"{long.reach} tokens are still unread")


def test_a_piece_that_was_dear_makes_the_next_one_small() -> None:
    pace = Pace(0.4, 2048)
    pace.read(0.0005 * 64, 64)
    assert pace.budget(1) == 768
    pace.read(0.001 * 768, 768)  # twice the gap
    assert pace.budget(1) <= 512
    for _ in range(2):
        pace.read(0.001 * 512, 512)
    assert pace.budget(1) == 384


def test_pieces_are_whole_where_the_gap_allows_it() -> None:
    pace = Pace(0.4, 512)
    assert pace.budget(0) == 512
    assert pace.budget(3) == LEAST
    pace.wrote(0.1)
    pace.read(0.002 * 128, 128)  # 150 tokens would fit
    assert pace.budget(3) == PIECE
    slow = Pace(0.4, 512)
    slow.wrote(0.1)
    slow.read(0.1 * 128, 128)  # three would fit
    assert slow.budget(3) == LEAST

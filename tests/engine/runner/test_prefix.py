"""The radix tree against a model so simple that it is obviously right: a dictionary of token lists."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.runner.prefix import Cut, PrefixTree, common_prefix


def array(tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(tokens, dtype=np.int32)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_common_prefix_is_what_zip_says(a: list[int], b: list[int]) -> None:
    expected = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        expected += 1
    assert common_prefix(array(a), array(b)) == expected


def evict(tree: PrefixTree, cells: int) -> list[Cut]:
    """Free `cells`, as the cache does it."""
    cuts: list[Cut] = []
    while cells > 0 and (victim := tree.oldest()) is not None:
        held = tree.tokens(victim)
        assert len(held) == tree.length(victim) and common_prefix(held, held) == len(held)
        cuts.append(tree.trim(victim, cells))
        cells -= cuts[-1].freed
    return cuts


class Naive:
    """Every sequence with its tokens; cells are distinct prefixes' positions."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}

    def cells(self) -> int:
        return len({tuple(tokens[: i + 1]) for tokens in self.held.values() for i in range(len(tokens))})

    def longest(self, tokens: list[int]) -> int:
        return max((common_prefix(array(tokens), array(held)) for held in self.held.values()), default=0)


def check(tree: PrefixTree, naive: Naive) -> None:
    assert set(tree.tails) == set(naive.held)
    assert tree.cells == naive.cells()
    assert sum(len(node.tokens) for node in tree.nodes()) == tree.cells
    for node in tree.nodes():
        path: list[int] = []
        at = node
        while at.parent is not None:
            path = at.tokens.tolist() + path
            assert at.start == at.parent.end
            assert at.parent.children[int(at.tokens[0])] is at
            at = at.parent
        assert node.holders == {s for s, held in naive.held.items() if held[: len(path)] == path}
    for sequence, held in naive.held.items():
        assert tree.length(sequence) == len(held)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_never_a_wrong_prefix_and_never_a_lost_cell(seed: int) -> None:
    rng = random.Random(seed)
    tree, naive = PrefixTree(), Naive()
    roots = [[rng.randrange(3) for _ in range(rng.randrange(1, 12))] for _ in range(3)]
    for sequence in range(25):
        tokens = list(rng.choice(roots)) + [rng.randrange(3) for _ in range(rng.randrange(6))]
        found = tree.match(array(tokens))
        assert (found.length if found else 0) == naive.longest(tokens)
        if found:
            assert naive.held[found.source][: found.length] == tokens[: found.length]
        tree.add(sequence, running=True)
        naive.held[sequence] = []
        done = 0
        while done < len(tokens):
            step = rng.randrange(1, len(tokens) - done + 1)
            for overlap in tree.extend(sequence, array(tokens[done : done + step])):
                assert naive.held[overlap.source][: overlap.end] == tokens[: overlap.end]
            done += step
            naive.held[sequence] = tokens[:done]
            check(tree, naive)
        action = rng.random()
        running = sorted(tree.running)
        if action < 0.5:
            ended = rng.choice(running)
            alone = (
                sum(held[: len(naive.held[ended])] == naive.held[ended] for held in naive.held.values()) == 1
            )
            assert tree.retire(ended) == alone
            if not alone:
                del naive.held[ended]
        elif action < 0.6:
            gone = rng.choice(running)
            before = naive.cells()
            del naive.held[gone]
            assert tree.remove(gone) == before - naive.cells()
        elif action < 0.9:
            before, wanted = naive.cells(), rng.randrange(1, 20)
            for cut in evict(tree, wanted):
                assert cut.sequence not in running
                naive.held[cut.sequence] = naive.held[cut.sequence][: cut.start]
                if cut.gone:
                    del naive.held[cut.sequence]
            idle_left = any(s not in tree.running for s in tree.tails)
            assert before - naive.cells() >= wanted or not idle_left
        else:
            one = rng.choice(running)
            length = rng.randrange(len(naive.held[one]) + 1)
            shared = any(
                other != one and held[: length + 1] == naive.held[one][: length + 1] and len(held) > length
                for other, held in naive.held.items()
            )
            if tree.truncate(one, length):
                naive.held[one] = naive.held[one][:length]
            else:
                assert shared
        check(tree, naive)


def test_the_least_recently_used_end_goes_first() -> None:
    tree = PrefixTree()
    for sequence, tokens in enumerate(([1, 2, 3, 4], [1, 2, 5, 6], [7, 8, 9])):
        tree.add(sequence, running=True)
        tree.extend(sequence, array(tokens))
    for sequence in range(3):
        assert tree.retire(sequence)
    tree.match(array([1, 2, 3, 4]))
    cuts = evict(tree, 2)
    assert [(cut.sequence, cut.gone) for cut in cuts] == [(1, True)]
    cuts = evict(tree, 2)
    assert [(cut.sequence, cut.start, cut.gone) for cut in cuts] == [(2, 1, False)]
    assert tree.match(array([1, 2, 3, 4, 5])).length == 4  # type: ignore[union-attr]


def test_a_running_sequence_is_never_evicted() -> None:
    tree = PrefixTree()
    tree.add(0, running=True)
    tree.extend(0, array([1, 2, 3]))
    assert evict(tree, 100) == []
    assert tree.oldest() is None
    assert tree.cells == 3


@pytest.mark.parametrize("length", [0, 1, 2])
def test_truncate_refuses_while_another_holds_the_end(length: int) -> None:
    tree = PrefixTree()
    for sequence in (0, 1):
        tree.add(sequence, running=True)
        tree.extend(sequence, array([1, 2, 3]))
    assert not tree.truncate(0, length)
    tree.remove(1)
    assert tree.truncate(0, length)
    assert tree.length(0) == length

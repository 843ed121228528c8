"""Thousands of overlapping prompts, cancellations and evictions: no answer ever comes from a wrong prefix.

A machine whose cells never suffice takes requests at random, loses some of them at random in the middle, and
is told at random to forget. Each answer is compared with that of a machine that keeps nothing.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from llm_engine.runner.messages import Done, GenerateRequest, SamplingParams, TokenLogprob

from tests.engine.runner.inprocess import InProcess, leaks
from tests.engine.runner.test_cache import TOLERANCE
from tests.support import random_gguf

REQUESTS = 2000
LENGTH = 3
GREEDY = SamplingParams(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_gguf.build(tmp_path_factory.mktemp("gguf") / "small.gguf", width=32, layers=2, heads=2)


def overlapping(rng: random.Random, count: int) -> list[str]:
    """Prompts that share beginnings of all lengths, some whole, as conversations and templates do."""
    prompts = ["".join(rng.choices("abcdefgh", k=rng.randrange(4, 40))) for _ in range(6)]
    while len(prompts) < count:
        base = rng.choice(prompts[-200:])
        cut = rng.randrange(1, len(base) + 1)
        prompts.append((base[:cut] + "".join(rng.choices("abcdefgh", k=rng.randrange(0, 20))))[:60])
    return prompts


def request(prompt: str) -> GenerateRequest:
    return GenerateRequest(prompt, max_tokens=LENGTH, logprobs=2, sampling=GREEDY)


def same(ours: list[TokenLogprob], theirs: list[TokenLogprob], tolerance: float = TOLERANCE) -> bool:
    """Equal, or different only from a place on where the two best tokens were as good as equal, and ours is
    one of them."""
    for a, b in zip(ours, theirs, strict=True):
        if a.id != b.id:
            close = abs(b.top[0][2] - b.top[1][2]) < tolerance
            return close and a.id in (b.top[0][0], b.top[1][0])
        if abs(a.logprob - b.logprob) > tolerance:
            return False
    return True


def answers_without_a_cache(small: Path, prompts: set[str]) -> dict[str, list[TokenLogprob]]:
    plain = InProcess(small, num_ctx=80, num_parallel=16, prefix_cache=False, lookup=0)
    numbered = dict(enumerate(sorted(prompts)))
    for number, prompt in numbered.items():
        plain.submit(number, request(prompt))
        if number % 64 == 63:
            plain.run()
    plain.run()
    assert plain.loop.stats().cached_tokens == 0
    return {prompt: plain.writer.logprobs[number] for number, prompt in numbered.items()}


@pytest.mark.parametrize(
    ("seed", "park", "least", "threads"),
    [(1, 0, 1000, 1), (2, 60_000, 1000, 1), (3, 60_000, 4, 1), (4, 60_000, 4, 2)],
    ids=["cells alone", "parking", "parking, and prompts read apart", "prompts read while streams go on"],
)
def test_no_answer_comes_from_a_wrong_prefix(
    small: Path, seed: int, park: int, least: int, threads: int
) -> None:
    rng = random.Random(seed)
    prompts = overlapping(rng, REQUESTS)
    cached = InProcess(
        small,
        num_ctx=80,
        cells=420,
        num_parallel=6,
        num_batch=32,
        park_bytes=park,
        idle_cells=40 if park else None,
        threads=threads,
    )
    assert cached.loop.apart is not None
    cached.loop.apart.least, cached.loop.apart.beside, cached.loop.apart.piece = least, 8, 8
    loop, waiting, open_, cancelled = cached.loop, list(enumerate(prompts)), set[int](), set[int]()
    evicted = 0
    while waiting or loop.busy:
        while waiting and len(open_) < 9:
            number, prompt = waiting.pop(rng.randrange(min(len(waiting), 40)))
            cached.submit(number, request(prompt))
            open_.add(number)
        cached.machine.turn()
        open_ -= cached.writer.ends.keys()
        if rng.random() < 0.08 and open_:
            number = rng.choice(sorted(open_))
            cached.machine.cancel(number)
            cancelled.add(number)
        if rng.random() < 0.1:
            evicted += loop.cache.evict(rng.randrange(1, 200))
        open_ -= cancelled
    stats = loop.stats()
    assert (stats.running, stats.prefilling, stats.queued, stats.cells_active) == (0, 0, 0, 0)
    assert stats.decode_failures == 0 and stats.cells_cached <= stats.cells
    # Two threads take more turns, and evictions come by the turn.
    assert stats.cached_tokens > stats.prompt_tokens / (6 * threads)
    assert stats.evictions > 300 and evicted > 500 and len(cancelled) > 50
    assert (stats.restored_tokens > 100) is bool(park) and stats.parked_bytes <= park
    assert (cached.loop.apart.moved > 2000) is (least < 1000)
    assert (cached.loop.apart.flown > 2000) is (threads > 1)
    whole = [number for number in range(REQUESTS) if number not in cancelled]
    assert all(isinstance(cached.writer.ends[number], Done) for number in whole)
    expected = answers_without_a_cache(small, {prompts[number] for number in whole})
    wrong = [
        prompts[number]
        for number in whole
        if not same(cached.writer.logprobs[number], expected[prompts[number]])
    ]
    assert not wrong
    assert not leaks(cached)

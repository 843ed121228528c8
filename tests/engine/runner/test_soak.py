"""Arrivals, cancels, deadlines and evictions at random, as of minutes, in seconds: nothing is left behind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from llm_engine.runner.messages import Done, Failed, GenerateRequest, SamplingParams

from tests.engine.runner.inprocess import InProcess, leaks
from tests.engine.runner.test_cache import overlapping

REQUESTS = 250


def request(rng: random.Random, prompt: str) -> GenerateRequest:
    return GenerateRequest(
        prompt,
        n=rng.choice((1, 1, 1, 3)),
        max_tokens=rng.randrange(1, 80),
        stop=tuple("aeiou") if rng.random() < 0.5 else (),
        shift=rng.random() < 0.5,
        cache=rng.random() < 0.8,
        logprobs=rng.choice((None, None, 2)),
        deadline=rng.choice((None, None, None, 0.0)),
        sampling=SamplingParams(seed=rng.randrange(99), temperature=rng.choice((0.0, 1.0)), ignore_eos=True),
    )


@pytest.mark.parametrize(
    ("parked", "threads"),
    [(0, 1), (60_000, 1), (60_000, 2)],
    ids=["cells alone", "parking, and prompts read apart", "prompts read while streams go on"],
)
def test_nothing_is_left_behind(random_model: Path, parked: int, threads: int) -> None:
    rng = random.Random(parked)
    bench = InProcess(
        random_model,
        num_ctx=120,
        cells=256,
        num_parallel=6,
        num_batch=48,
        max_queue=REQUESTS * 3,
        park_bytes=parked,
        idle_cells=60 if parked else None,
        threads=threads,
    )
    loop = bench.loop
    assert loop.apart is not None
    if parked:
        loop.apart.least, loop.apart.beside, loop.apart.piece = 4, 8, 8
    prompts, arrived, cancelled = overlapping(rng, 80), 0, set[int]()
    while arrived < REQUESTS or loop.busy:
        while arrived < REQUESTS and len(loop.queue.waiting) < 8 and rng.random() < 0.7:
            bench.submit(arrived, request(rng, rng.choice(prompts)))
            arrived += 1
        bench.machine.turn()
        if rng.random() < 0.15 and (open_ := [b.request_id for b in (*loop.running, *loop.queue.waiting)]):
            left = rng.choice(open_)
            bench.machine.cancel(left)
            cancelled.add(left)
        if rng.random() < 0.05 and loop.running:
            rng.choice(loop.running).deadline = 0.0
        if rng.random() < 0.05:
            loop.cache.evict(rng.randrange(1, 200))
    ends = bench.writer.ends
    assert not [end for end in ends.values() if isinstance(end, Failed)]
    assert {end.reason for end in ends.values() if isinstance(end, Done)} >= {
        "length",
        "stop_string",
        "deadline",
    }
    assert set(range(REQUESTS)) - cancelled <= ends.keys()
    stats = loop.stats()
    assert (stats.running, stats.prefilling, stats.queued, stats.decode_failures) == (0, 0, 0, 0)
    assert stats.cancelled > 40 and stats.cached_tokens > 200
    if threads == 1:  # with two, what happens when depends on the machine
        assert (stats.restored_tokens > 0) is bool(parked)
    assert (loop.apart.flown > 500) is (threads > 1)
    assert not leaks(bench)

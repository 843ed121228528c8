"""What the prefix cache may never do: change an answer, lose a cell, or keep one that nobody can use."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import pytest
from llm_engine.runner.messages import Failed, GenerateRequest, SamplingParams, Tokens

from tests.engine.runner.conftest import Answer, RequestFailed, Runners, ask

GREEDY = SamplingParams(temperature=0)
# The arithmetic of a token depends on how many tokens share its batch: sums are added up in another order.
# With cells of 32 bits and plain attention, that moves a log-probability of the test model by less than this;
# choices closer than it may go either way. (Cells of 16 bits round what they store, which hides nothing but
# makes the band wider.)
EXACT = {"kv_type": "f32", "flash_attn": "off"}
TOLERANCE = 1e-4


def overlapping(rng: random.Random, count: int) -> list[str]:
    """Prompts that share beginnings of all lengths with each other."""
    prompts = ["".join(rng.choices("abcdefgh", k=rng.randrange(4, 40))) for _ in range(4)]
    while len(prompts) < count:
        base = rng.choice(prompts)
        cut = rng.randrange(1, len(base) + 1)
        prompts.append((base[:cut] + "".join(rng.choices("abcdefgh", k=rng.randrange(0, 30))))[:90])
    rng.shuffle(prompts)
    return prompts


def same(a: Answer, b: Answer) -> bool:
    """Equal, or different only from a place on where the two best tokens were as good as equal."""
    for x, y in zip(a.logprobs, b.logprobs, strict=False):
        if x.id != y.id:
            return abs(x.top[0][2] - x.top[1][2]) < TOLERANCE and {t[0] for t in x.top} == {
                t[0] for t in y.top
            }
        if abs(x.logprob - y.logprob) > TOLERANCE:
            return False
    return len(a.ids) == len(b.ids)


def question(prompt: str) -> GenerateRequest:
    return GenerateRequest(prompt, max_tokens=6, logprobs=2, echo_tokens=True, sampling=GREEDY)


@pytest.mark.parametrize("seed", range(1))
async def test_answers_with_the_cache_are_those_without(
    start: Runners, random_model: Path, seed: int
) -> None:
    """Few cells, so that eviction never rests; several at once, so that prefixes are shared while they
    are computed.
    """
    rng = random.Random(seed)
    prompts = overlapping(rng, 250)
    cached = await start(random_model, num_ctx=128, cells=384, num_parallel=4, num_batch=32, **EXACT)
    plain = await start(random_model, num_ctx=128, num_parallel=1, prefix_cache=False, lookup=0, **EXACT)
    gate = asyncio.Semaphore(6)

    async def one(prompt: str) -> tuple[Answer, Answer]:
        async with gate:
            if rng.random() < 0.15:
                async with aclosing(cached.generate(question(prompt))) as events:
                    async for event in events:
                        if isinstance(event, Tokens):
                            break  # cancelled in the middle
            return await ask(cached, question(prompt)), await ask(plain, question(prompt))

    pairs = await asyncio.gather(*(one(prompt) for prompt in prompts))
    wrong = [prompt for prompt, (a, b) in zip(prompts, pairs, strict=True) if not same(a, b)]
    assert not wrong
    stats = await cached.stats()
    assert stats.cached_tokens > stats.prompt_tokens / 4
    assert stats.evictions > 0
    assert (stats.running, stats.prefilling, stats.queued, stats.cells_active) == (0, 0, 0, 0)
    assert stats.cells_cached <= stats.cells


@pytest.mark.parametrize(("budget", "seed", "least"), [(1 << 24, 3, 500), (150_000, 4, 100)])
async def test_answers_from_parked_prefixes_are_those_without(
    start: Runners, random_model: Path, budget: int, seed: int, least: int
) -> None:
    """Nothing idle stays in cells: prefixes come back from main memory, also where that is short."""
    rng = random.Random(seed)
    prompts = overlapping(rng, 120)
    settings = {"num_ctx": 128, "cells": 384, "num_batch": 32, "idle_cells": 0, "park_bytes": budget}
    cached = await start(random_model, num_parallel=4, **settings, **EXACT)
    plain = await start(random_model, num_ctx=128, num_parallel=1, prefix_cache=False, lookup=0, **EXACT)
    gate = asyncio.Semaphore(5)

    async def one(prompt: str) -> tuple[Answer, Answer]:
        async with gate:
            if rng.random() < 0.15:
                async with aclosing(cached.generate(question(prompt))) as events:
                    async for event in events:
                        if isinstance(event, Tokens):
                            break  # cancelled in the middle
            return await ask(cached, question(prompt)), await ask(plain, question(prompt))

    pairs = await asyncio.gather(*(one(prompt) for prompt in prompts))
    wrong = [prompt for prompt, (a, b) in zip(prompts, pairs, strict=True) if not same(a, b)]
    assert not wrong
    assert 0 < (await cached.stats()).parked_bytes <= budget
    # How much the others gave back depends on who met whom. In turn, a prompt is parked by the next one.
    before = (await cached.stats()).restored_tokens
    for prompt in ("first " * 12, "second " * 12) * (least // 50):
        assert same(await ask(cached, question(prompt)), await ask(plain, question(prompt)))
    stats = await cached.stats()
    assert stats.restored_tokens - before >= least
    assert (stats.running, stats.cells_active, stats.decode_failures) == (0, 0, 0)


async def test_a_parked_prefix_is_restored_once_and_shared(start: Runners, random_model: Path) -> None:
    runner = await start(random_model, num_ctx=512, num_parallel=4, idle_cells=0)
    await ask(runner, question("p" * 300))
    await ask(runner, question("other"))
    assert (await runner.stats()).parked_tokens >= 300
    answers = await asyncio.gather(*(ask(runner, question("p" * 300 + end)) for end in "wxyz"))
    assert all(answer.usage.cached_tokens >= 300 for answer in answers)
    assert (await runner.stats()).restored_tokens < 600


async def test_parked_memory_is_given_back_when_asked_for(start: Runners, random_model: Path) -> None:
    runner = await start(random_model, num_ctx=512, num_parallel=2, idle_cells=0)
    first = await ask(runner, question("p" * 300))
    await ask(runner, question("other"))
    parked = (await runner.stats()).parked_bytes
    assert parked > 0
    assert await runner.unpark(1) >= parked
    assert (await runner.stats()).parked_bytes == 0
    again = await ask(runner, question("p" * 300))
    # The other prompt still holds the token that all prompts begin with.
    assert (again.usage.cached_tokens, again.ids) == (1, first.ids)
    assert await (await start(random_model, park_bytes=0)).unpark(1) == 0


async def test_nothing_is_parked_without_a_budget(start: Runners, random_model: Path) -> None:
    runner = await start(random_model, num_ctx=256, cells=256, num_parallel=2, idle_cells=0, park_bytes=0)
    for letter in "abcd":
        await ask(runner, question(letter * 100))
    stats = await runner.stats()
    assert (stats.parked_tokens, stats.parked_bytes, stats.restored_tokens) == (0, 0, 0)
    assert stats.evictions > 0


async def test_identical_prompts_at_once_are_computed_once(start: Runners, random_model: Path) -> None:
    runner = await start(random_model, num_ctx=512, num_parallel=8, num_batch=64)
    answers = await asyncio.gather(*(ask(runner, question("z" * 400)) for _ in range(8)))
    assert sorted(answer.usage.cached_tokens for answer in answers) == [0, *[400] * 7]
    assert len({tuple(answer.ids) for answer in answers}) == 1


async def test_a_conversation_computes_only_what_is_new(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    ids = await runner.tokenize("a long beginning of a conversation")
    first = await ask(runner, GenerateRequest(ids, max_tokens=10, echo_tokens=True, sampling=GREEDY))
    more = [*ids, *first.ids, 70, 71, 72]
    second = await ask(runner, GenerateRequest(more, max_tokens=2, sampling=GREEDY))
    # All but the last token that was said, which was never computed.
    assert second.usage.cached_tokens == len(ids) + len(first.ids) - 1


async def test_a_request_may_decline_the_cache_for_what_it_leaves(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    await ask(runner, GenerateRequest("private text of mine", max_tokens=2, cache=False))
    assert (await runner.stats()).cells_cached == 0


async def test_more_work_than_cells_is_done_in_turns(start: Runners, random_model: Path) -> None:
    """Eight streams that together outgrow the cache: the youngest give way, and all end as if they had
    been alone.
    """
    runner = await start(random_model, num_ctx=200, cells=400, num_parallel=8, num_batch=64, **EXACT)
    plain = await start(random_model, num_ctx=200, num_parallel=1, prefix_cache=False, lookup=0, **EXACT)
    requests = [
        GenerateRequest(
            f"{i}" * 40,
            max_tokens=120,
            logprobs=2,
            echo_tokens=True,
            sampling=SamplingParams(temperature=0, ignore_eos=True),
        )
        for i in range(8)
    ]
    answers = await asyncio.gather(*(ask(runner, request) for request in requests))
    assert [answer.usage.completion_tokens for answer in answers] == [120] * 8
    assert (await runner.stats()).preemptions > 0
    for request, answer in zip(requests[:3], answers[:3], strict=True):
        assert same(answer, await ask(plain, request))


async def test_a_prompt_that_can_never_fit_fails_alone(start: Runners, random_model: Path) -> None:
    runner = await start(random_model, num_ctx=512, cells=128, num_parallel=2)
    # The context of one sequence is never larger than the cells there are.
    assert runner.info.n_ctx <= runner.info.cells
    with pytest.raises(RequestFailed) as failed:
        await ask(runner, GenerateRequest("x" * (runner.info.n_ctx + 5)))
    assert failed.value.kind == "context"
    assert (await ask(runner, GenerateRequest("fine", max_tokens=2))).reason == "length"


async def test_a_soak_of_arrivals_and_cancels_leaks_nothing(start: Runners, random_model: Path) -> None:
    rng = random.Random(11)
    runner = await start(random_model, num_ctx=160, cells=512, num_parallel=5, num_batch=48, max_queue=400)
    prompts = overlapping(rng, 80)

    async def one() -> None:
        await asyncio.sleep(rng.random() * 2)  # arrivals at random times are the load itself
        request = GenerateRequest(
            rng.choice(prompts),
            n=rng.choice((1, 1, 1, 3)),
            max_tokens=rng.randrange(1, 60),
            stop=("a",) if rng.random() < 0.3 else (),
            shift=rng.random() < 0.5,
            cache=rng.random() < 0.9,
            deadline=rng.choice((None, None, 0.05, 1.0)),
            sampling=SamplingParams(seed=rng.randrange(99), temperature=rng.choice((0.0, 1.0))),
        )
        leave_after = rng.choice((None, None, 0, 1, 5))
        seen = 0
        async with aclosing(runner.generate(request)) as events:
            async for event in events:
                assert not isinstance(event, Failed), event
                seen += isinstance(event, Tokens)
                if leave_after is not None and seen >= leave_after:
                    return

    tasks = asyncio.all_tasks()
    await asyncio.gather(*(one() for _ in range(400)))
    stats = await runner.stats()
    assert (stats.running, stats.prefilling, stats.queued, stats.cells_active) == (0, 0, 0, 0)
    assert stats.cells_cached <= stats.cells
    assert stats.decode_failures == 0
    assert asyncio.all_tasks() == tasks
    # The cells can still be used: three requests at once that need nearly all of them are served, and none
    # has to give way.
    endless = SamplingParams(temperature=0, ignore_eos=True)
    requests = [GenerateRequest(f"{i}" * 120, max_tokens=30, cache=False, sampling=endless) for i in range(3)]
    whole = await asyncio.gather(*(ask(runner, request) for request in requests))
    assert [answer.reason for answer in whole] == ["length"] * 3
    after = await runner.stats()
    assert (after.preemptions, after.decode_failures) == (stats.preemptions, 0)

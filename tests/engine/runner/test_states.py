"""Models whose memory cannot be cut: it is continued whole or from a copy, and the text is the same."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from llm_engine.runner.batch import Batch
from llm_engine.runner.checkpoints import Checkpoints
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.states import States

from tests.engine.runner.conftest import Runners, ask, ask_all
from tests.engine.runner.inprocess import InProcess
from tests.engine.runner.test_cache_property import overlapping, same
from tests.support import mamba_gguf, random_gguf


@pytest.fixture(scope="session")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mamba_gguf.build(tmp_path_factory.mktemp("gguf") / "mamba.gguf")


# This activation is looked up in a table of 16-bit numbers: the least difference may become one of a step.
TOLERANCE_OF_GELU = 1e-3


def array(*tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(tokens, dtype=np.int32)


def test_takes_the_longest_state_that_is_a_whole_beginning() -> None:
    states = States()
    states.keep(1, array(1, 2))
    states.keep(2, array(1, 2, 3))
    states.keep(3, array(1, 2, 3, 9))
    assert states.cells == 9
    assert states.take(array(1, 2, 3, 4)) == (2, 3)
    assert states.take(array(1, 2, 3, 4)) == (1, 2)
    assert states.take(array(1, 2, 3, 4)) is None
    assert states.drop() == 3
    assert states.drop() is None


def question(prompt: list[int] | str, count: int = 12) -> GenerateRequest:
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    return GenerateRequest(prompt, max_tokens=count, echo_tokens=True, sampling=sampling)


def greedy(prompt: str) -> GenerateRequest:
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    return GenerateRequest(prompt, max_tokens=4, logprobs=2, sampling=sampling)


async def test_a_conversation_goes_on_from_its_state_with_the_same_text(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=2)
    plain = await start(mamba, num_parallel=1, prefix_cache=False)
    assert (runner.info.cache_mode, plain.info.cache_mode) == ("checkpoint", "none")
    ids = await runner.tokenize("a long beginning of a conversation")
    first = await ask(runner, question(ids))
    more = [*ids, *first.ids, 70, 71, 72]
    second = await ask(runner, question(more))
    assert second.usage.cached_tokens == len(ids) + len(first.ids) - 1
    assert first.usage.drafted_tokens == second.usage.drafted_tokens == 0
    assert second.ids == (await ask(plain, question(more))).ids
    # A prompt that leaves the old one earlier must not see its state.
    other = [*ids[:-3], 90]
    assert (await ask(runner, question(other))).ids == (await ask(plain, question(other))).ids


PROMPT = "a prompt that is long enough to be worth a copy of the state that it leaves"


async def test_a_state_is_copied_where_others_go_on(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=2)
    plain = await start(mamba, num_parallel=1, prefix_cache=False)
    size = len(await runner.tokenize(PROMPT))
    # The same again, and again with another answer behind it than was given.
    for prompt, cached in ((PROMPT, 0), (PROMPT, size - 1), (PROMPT + "!!", size - 1)):
        answer = await ask(runner, question(prompt))
        assert answer.usage.cached_tokens == cached
        assert answer.ids == (await ask(plain, question(prompt))).ids
    # Two prompts begin alike: the second one marks where, a third one goes on there.
    shared = "what stands before all of these questions: "
    upto = len(await runner.tokenize(shared))
    found = []
    for end in ("one?", "two?", "six?"):
        answer = await ask(runner, question(shared + end))
        found.append(answer.usage.cached_tokens)
        assert answer.ids == (await ask(plain, question(shared + end))).ids
    assert found == [0, 0, upto]
    stats = await runner.stats()
    assert stats.parked_bytes > 0 and (stats.running, stats.cells_active) == (0, 0)
    assert await runner.unpark(1 << 40) == stats.parked_bytes
    assert (await ask(runner, question(PROMPT))).usage.cached_tokens == 0


async def test_answers_of_one_prompt_share_it(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=4)
    request = GenerateRequest(PROMPT, n=4, max_tokens=5, sampling=SamplingParams(temperature=0))
    size = len(await runner.tokenize(PROMPT))
    answers = await ask_all(runner, request)
    assert sorted(answer.usage.cached_tokens for answer in answers) == [0, *[size - 1] * 3]
    assert len({answer.text for answer in answers}) == 1


async def test_without_a_budget_nothing_is_copied(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=2, park_bytes=0)
    for _ in range(2):
        assert (await ask(runner, question(PROMPT))).usage.cached_tokens == 0
    assert (await runner.stats()).parked_bytes == 0


@pytest.fixture(scope="session")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer with a state, one that attends."""
    return random_gguf.build(tmp_path_factory.mktemp("gguf") / "hybrid.gguf", architecture="lfm2")


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers that look back 16 tokens: llama.cpp reuses the cells of what lies further back."""
    path = tmp_path_factory.mktemp("gguf") / "window.gguf"
    return random_gguf.build(path, architecture="gemma3", window=16)


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
@pytest.mark.parametrize("few", [False, True], ids=["room", "little room"])
def test_no_answer_comes_from_a_wrong_state(kind: str, few: bool, request: pytest.FixtureRequest) -> None:
    """Overlapping prompts and cancellations, with few states and, once, room for few copies and cells."""
    rng = random.Random(few)
    model: Path = request.getfixturevalue(kind)
    sample = InProcess(model, num_ctx=80, num_parallel=1)
    sample.submit(0, greedy("p" * 60))
    sample.run()
    budget = (24 if few else 1000) * sample.loop.stats().parked_bytes
    cells = 160 if few else 240
    machine = InProcess(model, num_ctx=80, num_parallel=3, num_batch=24, park_bytes=budget, cells=cells)
    assert machine.loop.cache.mode == "checkpoint"
    plain = InProcess(model, num_ctx=80, num_parallel=3, prefix_cache=False)
    prompts = overlapping(rng, 400)
    cancelled = set()
    for number, prompt in enumerate(prompts):
        machine.submit(number, greedy(prompt))
        machine.machine.turn()
        assert machine.loop.cache.used <= machine.loop.cache.cells
        if rng.random() < 0.1:
            machine.machine.cancel(number)
            cancelled.add(number)
        if len(machine.loop.queue) > 4:
            machine.run()
    machine.run()
    stats = machine.loop.stats()
    assert stats.cached_tokens > (0 if few else stats.prompt_tokens / 8)
    assert 0 < stats.parked_bytes <= budget
    assert (stats.running, stats.cells_active, stats.decode_failures) == (0, 0, 0)
    whole = [number for number in range(len(prompts)) if number not in cancelled]
    for number in whole[::2]:
        plain.submit(number, greedy(prompts[number]))
        plain.run()
        assert same(machine.writer.logprobs[number], plain.writer.logprobs[number]), prompts[number]


def test_a_batch_that_fails_is_computed_again(mamba: Path) -> None:
    machine = InProcess(mamba, num_ctx=128, num_parallel=3)
    prompts = ["one prompt", "and another one", PROMPT]
    expected = machine.say(prompts, 10)
    batch, turns = machine.loop._batch, iter(range(1000))

    def decode(context: object) -> int:
        """Fails after it has computed, so that the states have gone on."""
        code = Batch.decode(batch, context)
        return -3 if next(turns) == 6 else code

    batch.decode = decode  # type: ignore[method-assign]
    assert machine.say(prompts, 10) == expected
    assert machine.loop.stats().decode_failures == 1


def test_a_copy_is_for_prompts_that_begin_with_all_of_it() -> None:
    copies = Checkpoints(1000, lambda: 1 << 40)

    def keep(size: int, *tokens: int) -> None:
        copies.keep(array(*tokens), size, lambda: np.zeros(size, dtype=np.uint8))

    keep(300, 1, 2)
    keep(300, 1, 2, 3)
    keep(300, 1, 9)
    found = copies.find(array(1, 2, 3, 4))
    assert found is not None and found[0] == 3
    assert copies.find(array(1, 7)) is None
    keep(300, 5)  # the one that was used least recently goes
    assert copies.find(array(1, 2, 4)) is None and copies.find(array(1, 9)) is not None
    keep(2000, 6)
    assert (copies.find(array(6)), len(copies), copies.bytes) == (None, 3, 900)
    long = array(*range(100))
    assert copies.places(long, [array(*range(40), 7, 7)]) == [40, 99]
    assert copies.places(array(1, 2, 3)) == []


async def test_more_conversations_than_states_still_answer_rightly(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=3)
    plain = await start(mamba, num_parallel=1, prefix_cache=False)
    prompts = [f"conversation number {i}" for i in range(14)]
    answers = await asyncio.gather(*(ask(runner, question(prompt)) for prompt in prompts))
    for prompt, answer in list(zip(prompts, answers, strict=True))[::4]:
        assert answer.ids == (await ask(plain, question(prompt))).ids
    stats = await runner.stats()
    assert (stats.running, stats.cells_active) == (0, 0)


async def test_a_sliding_window_shares_prefixes_longer_than_it(start: Runners, window: Path) -> None:
    runner = await start(window, num_parallel=2)
    assert (runner.info.cache_mode, runner.info.architecture) == ("prefix", "gemma3")
    first, again = await ask(runner, question(PROMPT)), await ask(runner, question(PROMPT))
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1 > 16
    assert first.ids == again.ids


def test_no_answer_of_a_sliding_window_comes_from_a_wrong_prefix(window: Path) -> None:
    """Prompts of up to four windows that branch off anywhere, cancelled and forgotten at random."""
    rng = random.Random(5)
    prompts = overlapping(rng, 400)
    cached = InProcess(window, num_ctx=80, cells=420, num_parallel=6, num_batch=32)
    plain = InProcess(window, num_ctx=80, num_parallel=8, prefix_cache=False, lookup=0)
    loop, waiting = cached.loop, list(enumerate(prompts))
    while waiting or loop.busy:
        while waiting and len(loop.queue) < 3:
            number, prompt = waiting.pop(0)
            cached.submit(number, greedy(prompt))
        cached.machine.turn()
        if rng.random() < 0.05 and (running := [b.request_id for b in loop.running]):
            cached.machine.cancel(rng.choice(running))
        if rng.random() < 0.1:
            loop.cache.evict(rng.randrange(1, 200))
    stats = loop.stats()
    assert stats.decode_failures == 0 and stats.evictions > 50
    assert stats.cached_tokens > stats.prompt_tokens / 6
    for number, prompt in enumerate(prompts):
        plain.submit(number, greedy(prompt))
    plain.run(most=20 * len(prompts))
    whole = [number for number in range(len(prompts)) if number in cached.writer.ends]
    assert len(whole) > 300
    ours, theirs = cached.writer.logprobs, plain.writer.logprobs
    assert all(same(ours[number], theirs[number], TOLERANCE_OF_GELU) for number in whole)

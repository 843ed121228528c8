"""Models whose memory is one state: it is continued whole or not at all, and the text is the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.states import States

from tests.engine.runner.conftest import Runners, ask
from tests.support import mamba_gguf


@pytest.fixture(scope="session")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mamba_gguf.build(tmp_path_factory.mktemp("gguf") / "mamba.gguf")


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
    assert (await ask(runner, question([*ids[:-3], 90]))).usage.cached_tokens == 0


async def test_more_conversations_than_states_still_answer_rightly(start: Runners, mamba: Path) -> None:
    runner = await start(mamba, num_parallel=3)
    plain = await start(mamba, num_parallel=1, prefix_cache=False)
    prompts = [f"conversation number {i}" for i in range(14)]
    answers = await asyncio.gather(*(ask(runner, question(prompt)) for prompt in prompts))
    for prompt, answer in list(zip(prompts, answers, strict=True))[::4]:
        assert answer.ids == (await ask(plain, question(prompt))).ids
    stats = await runner.stats()
    assert (stats.running, stats.cells_active) == (0, 0)

"""Who is let in and when: waiting costs nobody anything, nobody waits for nothing, and nobody for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from llm_engine.runner.branch import Branch, State
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.waiting import ROUND, Queue

from tests.engine.runner.inprocess import InProcess
from tests.support import mamba_gguf, random_gguf

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mamba_gguf.build(tmp_path_factory.mktemp("gguf") / "mamba.gguf")


def ask(prompt: str, count: int = 1, **more: object) -> GenerateRequest:
    return GenerateRequest(prompt, max_tokens=count, sampling=ENDLESS, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mamba", "random_model"])
def test_who_does_not_fit_yet_costs_nobody_what_is_kept(kind: str, request: pytest.FixtureRequest) -> None:
    """What it would go on from stays where it is, and so does what others left."""
    model: Path = request.getfixturevalue(kind)
    inside = InProcess(model, num_ctx=256, cells=256, num_parallel=2, num_batch=64)
    loop = inside.loop
    inside.submit(1, ask("w" * 40, 2))
    inside.submit(2, ask("v" * 40, 2))
    inside.run()
    kept = loop.stats().cells_cached
    assert kept >= 80
    inside.submit(3, ask("r" * 40, 60))
    inside.machine.turn()
    inside.submit(4, ask("w" * 40 + "more" * 35, 2))
    before = loop.stats()
    for _ in range(40):
        inside.machine.turn()
    after = loop.stats()
    assert (after.running, after.queued) == (1, 1)
    assert (after.evictions, after.cells_cached) == (before.evictions, before.cells_cached)
    inside.run()
    assert set(inside.writer.ends) == {1, 2, 3, 4}
    assert loop.stats().cached_tokens >= 39


@pytest.mark.parametrize(
    ("leads", "follows"),
    [({}, {"prompt_logprobs": 0}), ({"cache": False}, {})],
    ids=["who is told of the prompt", "behind one who leaves nothing"],
)
@pytest.mark.parametrize("kind", ["mamba", "random_model"])
def test_nobody_waits_for_what_he_cannot_take_over(
    kind: str, leads: dict[str, object], follows: dict[str, object], request: pytest.FixtureRequest
) -> None:
    inside = InProcess(request.getfixturevalue(kind), num_ctx=512, num_batch=32)
    inside.submit(1, ask("p" * 300, **leads))
    inside.machine.turn()
    inside.submit(2, ask("p" * 300, **follows))
    inside.machine.turn()
    assert [branch.state for branch in inside.loop.running] == [State.READING] * 2
    inside.run()


def test_who_can_take_over_waits(random_model: Path) -> None:
    inside = InProcess(random_model, num_ctx=512, num_batch=32)
    for number in (1, 2):
        inside.submit(number, ask("p" * 300))
        inside.machine.turn()
    assert len(inside.loop.running) == len(inside.loop.queue.waiting) == 1
    inside.run()
    assert inside.loop.stats().cached_tokens >= 299


def waiting(number: int, index: int) -> Branch:
    prompt = np.arange(4, dtype=np.int32)
    return Branch(number, index, GenerateRequest([1]), prompt, seed=0, arrived=float(number), deadline=None)


def test_further_answers_come_after_some_later_requests_and_before_the_rest() -> None:
    queue = Queue(1000)
    for index in range(4):
        queue.add(waiting(0, index))
    done: list[tuple[int, int]] = []
    for number in range(1, 60):
        queue.add(waiting(number, 0))
        first = queue.waiting.pop(0)
        done.append((first.request_id, first.index))
    order = done + [(branch.request_id, branch.index) for branch in queue.waiting]
    places = [order.index((0, index)) for index in range(4)]
    assert places[0] == 0
    for index, place in enumerate(places):
        assert index * ROUND <= place <= index * (ROUND + 1)
    firsts = [number for number, index in order if index == 0]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(("keep", "stay"), [(-1, 21), (0, 1), (10, 11), (1000, 56)])
def test_what_is_to_stay_stays_when_the_context_is_full(tmp_path: Path, keep: int, stay: int) -> None:
    model = random_gguf.build(tmp_path / "m.gguf")
    inside = InProcess(model, num_ctx=64, num_parallel=1, lookup=0)
    inside.submit(1, ask("abcdefghijklmnopqrst", 120, keep=keep))
    inside.machine.turn()
    (branch,) = inside.loop.running
    said = branch.tokens[: branch.count].copy()
    shifts = 0
    while branch.state is not State.OVER:
        count = branch.count
        inside.machine.turn()
        if branch.count < count:
            shifts += 1
            assert np.array_equal(branch.tokens[: min(stay, 21)], said[: min(stay, 21)])
            if stay < 21:
                assert branch.tokens[stay] != said[stay]
    assert shifts >= 2
    assert inside.loop.counters.decode_failures == 0

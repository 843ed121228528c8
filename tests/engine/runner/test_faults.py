"""When llama.cpp refuses a batch: only the request that cannot be computed fails, the others go on as if
nothing had been.

The machine is the real one, in this process; between it and `llama_decode` stands a fault that answers for
some batches instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_engine.runner import embed
from llm_engine.runner.batch import Batch
from llm_engine.runner.embed import Job
from llm_engine.runner.messages import Failed
from llm_engine.runner.model import Context, LoadError

from tests.engine.runner.inprocess import InProcess

Fault = Callable[[Batch], int]
"""A code to answer instead of llama.cpp, or 0 to let it compute."""
POISON = "\x07"
TOKEN_OF_POISON = 3 + 7


class Bench(InProcess):
    """A machine, and a fault in front of it."""

    def __init__(self, model: Path) -> None:
        super().__init__(model, lookup=0)
        self.codes: list[int] = []
        self._fault: Fault | None = None
        batch = self.loop._batch

        def decode(context: Any) -> int:
            code = self._fault(batch) if self._fault is not None else 0
            self.codes.append(code)
            return code or Batch.decode(batch, context)

        batch.decode = decode  # type: ignore[method-assign]

    def say_with(self, fault: Fault, *prompts: str) -> list[str | Failed]:
        self._fault = fault
        answers = self.say(prompts, COUNT)
        self._fault = None
        return answers


@pytest.fixture
def bench(random_model: Path) -> Iterator[Bench]:
    made = Bench(random_model)
    yield made
    made.machine.model.free()


COUNT = 12
GOOD = ["first", "the second one", "and a third"]


def poisoned(code: int) -> Fault:
    return lambda batch: code if TOKEN_OF_POISON in batch.token[: batch.size] else 0


@pytest.mark.parametrize("code", [-1, -2, -3])
def test_a_prompt_that_breaks_the_batch_fails_alone(bench: Bench, code: int) -> None:
    expected = bench.say(GOOD, COUNT)
    answers = bench.say_with(poisoned(code), *GOOD, "bad " + POISON)
    assert answers[:3] == expected
    failed = answers[3]
    assert isinstance(failed, Failed) and failed.kind == "internal" and f"code {code}" in failed.text
    assert bench.say(GOOD, COUNT) == expected


@pytest.mark.parametrize("code", [-3, 2])
def test_a_stream_that_breaks_in_the_middle_fails_alone(bench: Bench, code: int) -> None:
    """From the fifth token of one answer on."""
    expected = bench.say([*GOOD, "x" * 40], COUNT)

    def fault(batch: Batch) -> int:
        return code if bool((batch.pos[: batch.size] >= 44).any()) else 0

    answers = bench.say_with(fault, *GOOD, "x" * 40)
    assert answers[:3] == expected[:3]
    assert isinstance(answers[3], Failed) and f"code {code}" in answers[3].text
    assert bench.writer.text[3] == str(expected[3])[: len(bench.writer.text[3])] != ""


@pytest.mark.parametrize("code", [1, 2, -3])
def test_a_failure_that_passes_loses_nobody(bench: Bench, code: int) -> None:
    expected = bench.say(GOOD, COUNT)
    turns = iter(range(1000))

    def passing(batch: Batch) -> int:
        return code if next(turns) in (1, 4, 9) and batch.size > 1 else 0

    assert bench.say_with(passing, *GOOD) == expected
    assert code in bench.codes


def test_no_room_for_all_at_once_is_no_error(bench: Bench) -> None:
    """llama.cpp finds no cells for more than one sequence at a time: they are computed in turns."""
    expected = bench.say(GOOD, COUNT)

    def crowded(batch: Batch) -> int:
        return 1 if len(set(batch.sequence[: batch.size].tolist())) > 1 else 0

    assert bench.say_with(crowded, *GOOD) == expected


def test_what_can_never_have_room_fails_and_the_others_end(bench: Bench) -> None:
    expected = bench.say(GOOD, COUNT)
    answers = bench.say_with(poisoned(1), "bad " + POISON, *GOOD)
    assert answers[1:] == expected
    assert isinstance(answers[0], Failed) and answers[0].kind == "context"


def test_an_input_that_cannot_be_embedded_fails_its_request_alone(bench: Bench) -> None:
    machine = bench.machine
    embedder = machine.embedder(None)

    def job(number: int, *texts: str) -> Job:
        return Job(number, [machine.vocab.tokenize(text) for text in texts])

    def embed_all(*jobs: Job) -> None:
        bench.writer.replies, bench.writer.ends = {}, {}
        for one in jobs:
            machine.embed(one, None)
        while machine.busy:
            machine.turn()

    embed_all(job(1, "a", "b"), job(2, "c"))
    expected = {number: reply["vectors"] for number, reply in bench.writer.replies.items()}
    compute = embedder._compute
    bad = poisoned(-3)
    embedder._compute = lambda: bad(embedder._batch) or compute()  # type: ignore[method-assign]
    embed_all(job(1, "a", "b"), job(3, "d", POISON, "e"), job(2, "c"))
    assert sorted(bench.writer.replies) == [1, 2] and list(bench.writer.ends) == [3]
    for number, vectors in expected.items():
        for have, want in zip(bench.writer.replies[number]["vectors"], vectors, strict=True):
            assert np.frombuffer(have, np.float32) == pytest.approx(np.frombuffer(want, np.float32), abs=1e-5)
    failed = bench.writer.ends[3]
    assert isinstance(failed, Failed) and "code -3" in failed.text


def test_no_memory_to_embed_ends_that_request_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The context for it is made when it is first asked for, beside the streams."""
    machine = bench.machine

    def refused(*_: object, **__: object) -> None:
        raise LoadError("no memory for a context of 256 tokens")

    expected = bench.say(GOOD, COUNT)
    with monkeypatch.context() as patched:
        patched.setattr(embed, "Context", refused)
        machine.embed(Job(11, [machine.vocab.tokenize("a")]), None)
        assert bench.writer.ends[11] == Failed("internal", "no memory for a context of 256 tokens")
        assert bench.say(GOOD, COUNT) == expected
    machine.embed(Job(12, [machine.vocab.tokenize("a")]), None)
    machine.turn()
    assert list(bench.writer.replies) == [12]


def test_an_error_of_the_embedder_ends_its_requests_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bench.machine
    embedder = machine.embedder(None)

    def broken(_row: int) -> None:
        raise ValueError("NULL pointer access")

    with monkeypatch.context() as patched:
        patched.setattr(embedder, "_read", broken)
        for number in (11, 12):
            machine.embed(Job(number, [machine.vocab.tokenize("a"), machine.vocab.tokenize("b")]), None)
        assert all(isinstance(answer, str) for answer in bench.say(GOOD, COUNT))
        for number in (11, 12):
            failed = bench.writer.ends[number]
            assert isinstance(failed, Failed) and "NULL pointer" in failed.text
    assert not machine.busy and not bench.writer.replies
    machine.embed(Job(13, [machine.vocab.tokenize("a")]), None)
    machine.turn()
    assert list(bench.writer.replies) == [13]


def test_room_to_embed_grows_with_the_inputs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there is no memory for it, that is the fault of the long input alone."""
    machine = bench.machine
    embedder = machine.embedder(None)
    monkeypatch.setattr(embedder, "_most", 2048)

    def embed(number: int, tokens: int) -> Any:
        bench.writer.replies, bench.writer.ends = {}, {}
        machine.embed(Job(number, [np.full(tokens, 65, np.int32)]), None)
        while machine.busy:
            machine.turn()
        return bench.writer.replies.get(number) or bench.writer.ends[number]

    assert embedder.room == 512
    short = np.frombuffer(embed(21, 3)["vectors"][0], np.float32)
    monkeypatch.setattr(embedder, "_free", lambda: 1000)
    refused = embed(22, 600)
    assert isinstance(refused, Failed) and "600 tokens takes about" in refused.text
    assert embedder.room == 512
    monkeypatch.setattr(embedder, "_free", lambda: 1 << 40)
    make = embedder._context

    def small(pooling: str) -> Context:
        if embedder.room > 512:
            raise LoadError("no memory for a context of 1024 tokens")
        return make(pooling)

    with monkeypatch.context() as patched:
        patched.setattr(embedder, "_context", small)
        assert "1024 tokens" in embed(25, 600).text
        assert embedder.room == 512 and len(embed(26, 3)["vectors"]) == 1, "it has what it had"
    assert len(embed(23, 600)["vectors"]) == 1
    assert embedder.room == 1024
    assert np.frombuffer(embed(24, 3)["vectors"][0], np.float32) == pytest.approx(short, abs=1e-3)
    assert machine.unpark(1 << 40) > 0
    assert machine.embedder(None).room == 512, "an idle one makes way for another model"


@pytest.mark.parametrize("where", ["while it is read", "when it moves"])
def test_a_prompt_that_cannot_be_read_apart_is_read_with_the_others(
    bench: Bench, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = bench.loop.apart
    assert apart is not None
    apart.least, apart.beside = 4, 0
    expected = bench.say(GOOD, COUNT)
    assert apart.moved > 0
    before, failed = apart.moved, bench.loop.counters.decode_failures
    if where == "when it moves":
        monkeypatch.setattr(bench.loop.cache, "lay", lambda *_: False)
        assert bench.say(GOOD, COUNT) == expected
    else:
        monkeypatch.setattr(apart.batch, "decode", lambda _context: -3)
        assert bench.say(GOOD, COUNT) == expected
        assert bench.loop.counters.decode_failures == failed + 1
    assert apart.moved == before

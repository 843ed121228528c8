"""How much is computed in one turn beside running streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_engine.runner.branch import State
from llm_engine.runner.embed import Job
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.pace import LEAST, PIECE, Pace

from tests.engine.runner.inprocess import InProcess


def test_a_budget_is_what_fits_into_the_gap() -> None:
    pace = Pace(1.0, capacity=4096)
    assert pace.budget(0) == 4096 and pace.budget(1) == LEAST, "nobody waits; nothing is known yet"
    pace.read(0.1, 100)
    pace.wrote(0.2)
    assert pace.budget(1) == 768  # 0.8 s at a millisecond each, in pieces of PIECE
    pace.share = 0.5
    assert pace.budget(1) == 384 and pace.budget(0) == 4096


def test_what_is_read_beside_knows_how_long_the_streams_take() -> None:
    streams = Pace(1.0, capacity=4096)
    beside = Pace(1.0, capacity=512, beside=streams)
    beside.read(0.2, 100)
    streams.wrote(0.75)
    assert beside.budget(2) == PIECE
    streams.wrote(2.0)
    assert beside.budget(2) == LEAST, "the gap is used up"


@pytest.fixture
def bench(random_model: Path) -> Iterator[InProcess]:
    """No gap at all, so that whoever keeps to it takes the least."""
    made = InProcess(random_model, num_ctx=1024, gap_ms=0.001, lookup=0)
    yield made
    made.machine.model.free()


def test_texts_are_embedded_one_by_one_beside_a_stream(bench: InProcess) -> None:
    machine = bench.machine

    def embed(number: int) -> int:
        """How many turns it takes."""
        turns = 0
        machine.embed(Job(number, [machine.vocab.tokenize("w" * LEAST)] * 16), None)
        while number not in bench.writer.replies:
            turns += 1
            machine.turn()
        return turns

    assert embed(1) == 3, "seven of 65 tokens fit into a batch of 512"
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    bench.submit(2, GenerateRequest("talk", max_tokens=500, sampling=sampling))
    while not any(branch.state is State.WRITING for branch in bench.loop.running):
        machine.turn()
    said = bench.loop.counters.generated_tokens
    assert embed(3) == 16
    assert bench.loop.counters.generated_tokens - said >= 16
    machine.cancel(2)
    assert embed(4) == 3

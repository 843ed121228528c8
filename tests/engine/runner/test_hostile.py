"""Requests made to harm the others: each fails by itself, and what runs beside it goes on."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from llm_engine.runner.aside import Aside, Work
from llm_engine.runner.grammar import DEEPEST, LARGEST, depth
from llm_engine.runner.history import MOST_BREAKERS
from llm_engine.runner.intake import LONGEST_STOP, MOST_STOPS, branches
from llm_engine.runner.messages import Failed, GenerateRequest, Grammar, SamplingParams, Tokens
from llm_engine.runner.sampling import Sampler

from tests.engine.runner.conftest import RequestFailed, Runners, ask, ask_all
from tests.engine.runner.inprocess import InProcess

GREEDY = SamplingParams(temperature=0)
ENDLESS = SamplingParams(temperature=0, ignore_eos=True)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def chain(length: int) -> dict[str, Any]:
    definitions = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$defs": {**definitions, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


HARMFUL = {
    "schema in schemas": (Grammar(json_schema=nested(480)), "too deeply"),
    "a long chain of references": (Grammar(json_schema=chain(900)), "too deeply"),
    "a reference to itself": (
        Grammar(json_schema={"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        "could not be parsed",
    ),
    "a pattern of groups": (
        Grammar(json_schema={"type": "string", "pattern": "(" * 500 + ")" * 500}),
        "deeply",
    ),
    "groups in groups": (
        Grammar(gbnf="root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000),
        f"limit is {DEEPEST}",
    ),
    "a rule that begins with itself": (Grammar(gbnf='root ::= root "a"'), "could not be parsed"),
    "a grammar without end": (Grammar(gbnf='root ::= "a"' * (LARGEST // 8)), f"limit is {LARGEST}"),
}


async def test_one_that_harms_ends_alone(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    async with aclosing(runner.generate(GenerateRequest("beside", sampling=ENDLESS))) as events:
        async for event in events:
            if isinstance(event, Tokens):
                break
        for grammar, says in HARMFUL.values():
            with pytest.raises(RequestFailed, match=says) as refused:
                await ask(runner, GenerateRequest("x", max_tokens=4, grammar=grammar, sampling=GREEDY))
            assert refused.value.kind == "invalid"
        async for event in events:
            if isinstance(event, Tokens):
                return
    pytest.fail("the stream beside ended")


FAR_BACK = {
    "penalties": SamplingParams(temperature=0, repeat_last_n=2**31 - 1, repeat_penalty=1.1),
    "dry": SamplingParams(temperature=0, dry_multiplier=1.0, dry_penalty_last_n=2**31 - 1),
    "more than 32 bits": SamplingParams(
        top_k=2**40, dry_multiplier=1.0, dry_allowed_length=2**40, dry_penalty_last_n=2**40, seed=1
    ),
}


@pytest.mark.parametrize("which", FAR_BACK)
async def test_looking_back_further_than_the_context_costs_no_more_than_that(
    start: Runners, random_model: Path, which: str
) -> None:
    """llama.cpp makes room for as many tokens as it is told to look at, or ends the process."""
    runner = await start(random_model)
    before = psutil.Process(runner.pid).memory_info().vms
    request = GenerateRequest("x" * 30, n=3, max_tokens=4, sampling=FAR_BACK[which])
    assert {answer.reason for answer in await ask_all(runner, request)} == {"length"}
    assert psutil.Process(runner.pid).memory_info().vms < before + (1 << 30)


async def test_as_many_strings_as_there_is_no_use_for_are_refused(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    many = [str(i) for i in range(MOST_STOPS + 1)]
    refused: dict[str, GenerateRequest] = {
        f"stop has {len(many)} strings; the limit is {MOST_STOPS}": GenerateRequest("x", stop=many),
        "a stop string has": GenerateRequest("x", stop=["x" * (LONGEST_STOP + 1)]),
        f"the limit is {MOST_BREAKERS}": GenerateRequest(
            "x", sampling=SamplingParams(dry_multiplier=1.0, dry_sequence_breakers=many)
        ),
    }
    for says, request in refused.items():
        with pytest.raises(RequestFailed, match=says) as error:
            await ask(runner, request)
        assert error.value.kind == "invalid"
    allowed = GenerateRequest("x", max_tokens=2, stop=many[:-1], sampling=GREEDY)
    assert (await ask(runner, allowed)).reason in ("length", "stop_string")


def test_what_is_refused_or_left_keeps_no_sampler(random_model: Path) -> None:
    """Each holds memory of llama.cpp's that nothing else gives back."""
    inside = InProcess(random_model, max_queue=1, num_parallel=1)
    costly = SamplingParams(repeat_penalty=1.1, seed=1)
    for number in range(6):
        inside.submit(number, GenerateRequest("abc", n=2, max_tokens=3, sampling=costly))
    inside.loop.outbox.flush()
    busy = [end for end in inside.writer.ends.values() if isinstance(end, Failed)]
    assert {end.kind for end in busy} == {"busy"}
    assert len(busy) == 5
    assert open_samplers() == 2
    inside.loop.cancel(0)
    assert open_samplers() == 0

    given: queue.SimpleQueue[Work] = queue.SimpleQueue()
    began, go, after = threading.Event(), threading.Event(), threading.Event()
    aside = Aside("test", given.put, lambda _id, error: pytest.fail(str(error)))

    def slow() -> Work:
        began.set()
        assert go.wait(60)
        made = branches(inside.machine.vocab, None, 256, 7, GenerateRequest("abc", sampling=costly))
        return lambda: inside.loop.submit(made)

    def last() -> Work:
        return after.set

    aside.put(7, slow)
    assert began.wait(60)
    aside.cancel(7)
    go.set()
    aside.put(8, last)
    assert given.get(timeout=60) == after.set
    assert open_samplers() == 0


def open_samplers() -> int:
    return sum(isinstance(one, Sampler) and one.open for one in gc.get_objects())


def test_all_answers_remember_the_same_prompt(random_model: Path) -> None:
    """What looks back is made once and copied: each answer's goes on by itself from there."""
    inside = InProcess(random_model)
    memory = {"repeat_penalty": 1.3, "frequency_penalty": 0.5, "dry_multiplier": 0.8, "repeat_last_n": -1}
    sampling = SamplingParams(temperature=0, ignore_eos=True, **memory)  # type: ignore[arg-type]
    request = GenerateRequest("abcabcabcabc", max_tokens=20, sampling=sampling, echo_tokens=True, cache=False)
    for number, n in ((1, 3), (2, 1)):
        inside.submit(number, replace(request, n=n))
        inside.run()
    answers = [inside.writer.said[1, index] for index in range(3)]
    assert answers == [inside.writer.said[2, 0]] * 3
    plain = SamplingParams(temperature=0, ignore_eos=True)
    inside.submit(3, replace(request, sampling=plain))
    inside.run()
    assert inside.writer.said[3, 0] != answers[0]


def test_the_depth_is_that_of_groups_alone() -> None:
    assert depth('root ::= ("(((" [(\\](] ("a" # (((\n | "\\"(") "b")') == 2
    assert depth("root ::= [a]") == 0


async def test_numbers_of_any_length_reach_the_runner(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    wide = {"type": "integer", "minimum": -(10**400), "maximum": 10**400}
    answer = await ask(
        runner, GenerateRequest("x", max_tokens=4, grammar=Grammar(json_schema=wide), sampling=GREEDY)
    )
    assert answer.text.lstrip("-").isdigit()


async def test_a_grammar_of_thousands_of_alternatives_stops_nobody(
    start: Runners, random_model: Path
) -> None:
    """It is read beside: requests that come after it are answered before it."""
    runner = await start(random_model)
    wide = Grammar(gbnf="root ::= " + " | ".join(f'"{i}"' for i in range(12_000)))
    slow = asyncio.create_task(ask(runner, GenerateRequest("x", max_tokens=2, grammar=wide, sampling=GREEDY)))
    await asyncio.sleep(0)
    quick = await ask(runner, GenerateRequest("y", max_tokens=2, sampling=GREEDY))
    assert quick.reason == "length"
    assert not slow.done()
    assert (await slow).text.isdigit()


def test_what_was_cancelled_while_it_was_prepared_is_never_given_on() -> None:
    given: queue.SimpleQueue[Work] = queue.SimpleQueue()
    failed: list[int] = []
    began, go, done = threading.Event(), threading.Event(), threading.Event()
    aside = Aside("test", given.put, lambda request_id, _error: failed.append(request_id))

    def slow() -> Work:
        began.set()
        assert go.wait(10)
        return lambda: None

    def broken() -> Work:
        raise RuntimeError("unheard of")

    def last() -> Work:
        return done.set

    aside.put(1, slow)
    assert began.wait(10)
    aside.cancel(1)
    aside.put(2, broken)
    aside.put(3, last)
    go.set()
    assert given.get(timeout=10) == done.set
    assert given.empty()
    assert failed == [2]

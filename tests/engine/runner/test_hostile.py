"""Requests made to harm the others: each fails by itself, and what runs beside it goes on."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from llm_engine.runner.aside import Aside, Work
from llm_engine.runner.grammar import DEEPEST, LARGEST, depth
from llm_engine.runner.messages import GenerateRequest, Grammar, SamplingParams, Tokens

from tests.engine.runner.conftest import RequestFailed, Runners, ask

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

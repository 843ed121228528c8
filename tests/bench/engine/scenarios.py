"""The loads. Each takes a port and a source of words, and gives one number; `higher` says which way is
better.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.bench.engine import client
from tests.bench.engine.client import Reply
from tests.bench.engine.words import Words

Message = dict[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    unit: str
    higher: bool
    wanted: float | None
    """The ratio to llama-server that must be reached (for `lower is better`: at most)."""
    run: Callable[[int, Words], Awaitable[float]]
    embedding: bool = False


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


async def _together(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """What all of them give. Where one fails the rest is called off: it must not load the next scenario."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _limited(limit: int, jobs: list[Callable[[], Awaitable[Reply]]]) -> list[Reply]:
    """Run jobs in order, `limit` at a time."""
    gate = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Awaitable[Reply]]) -> Reply:
        async with gate:
            return await job()

    return await _together(one(job) for job in jobs)


async def _rate(limit: int, jobs: list[Callable[[], Awaitable[Reply]]]) -> float:
    """Generated tokens per second over all jobs."""
    started = time.perf_counter()
    replies = await _limited(limit, jobs)
    return sum(reply.completion_tokens for reply in replies) / (time.perf_counter() - started)


async def single(port: int, words: Words) -> float:
    prompts = [words.text(60) for _ in range(4)]
    return await _rate(1, [lambda p=p: client.chat(port, _user(p), 96) for p in prompts])  # type: ignore[misc]


async def conc8(port: int, words: Words) -> float:
    prompts = [words.text(200) for _ in range(24)]
    return await _rate(8, [lambda p=p: client.chat(port, _user(p), 48) for p in prompts])  # type: ignore[misc]


def _with_system(system: str, text: str) -> list[Message]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


async def prefix(port: int, words: Words) -> float:
    systems = [words.text(900) for _ in range(12)]
    chats = [_with_system(systems[i % 12], words.text(12)) for i in range(48)]
    return await _rate(8, [lambda c=c: client.chat(port, c, 16) for c in chats])  # type: ignore[misc]


async def chat(port: int, words: Words) -> float:
    """Twelve people, five turns each, all talking at once."""
    openings = [[words.text(60) for _ in range(5)] for _ in range(12)]
    tokens = 0

    async def person(turns: list[str]) -> int:
        history: list[Message] = []
        said = 0
        for text in turns:
            history.append({"role": "user", "content": text})
            reply = await client.chat(port, history, 32)
            history.append({"role": "assistant", "content": reply.text})
            said += reply.completion_tokens
        return said

    started = time.perf_counter()
    tokens = sum(await _together(person(turns) for turns in openings))
    return tokens / (time.perf_counter() - started)


async def burst32(port: int, words: Words) -> float:
    system = words.text(300)
    chats = [_with_system(system, words.text(10)) for _ in range(32)]
    return await _rate(32, [lambda c=c: client.chat(port, c, 24) for c in chats])  # type: ignore[misc]


async def longmix(port: int, words: Words) -> float:
    """Four streams run; three long prompts arrive. The 95th percentile of the streams' gaps meanwhile, in
    ms.
    """
    prompts = [words.text(40) for _ in range(4)]
    span: list[float] = []

    async def arrivals() -> list[Reply]:
        await asyncio.sleep(1.5)  # part of the load: the streams are well under way when the prompts come
        span.append(time.perf_counter())
        for _ in range(3):
            await client.chat(port, _user(words.text(4000)), 4)
        span.append(time.perf_counter())
        return []

    async def stream(prompt: str) -> list[Reply]:
        return [await client.chat(port, _user(prompt), 400)]

    replies = itertools.chain(*await _together([*map(stream, prompts), arrivals()]))
    gaps: list[float] = []
    for reply in replies:
        inside = [t for t in reply.times if span[0] <= t <= span[1]]
        gaps += [b - a for a, b in itertools.pairwise(inside)]
    if len(gaps) < 20:
        raise client.BadReply(f"{len(gaps)} gaps in the running streams are too few for a percentile")
    return 1000 * statistics.quantiles(gaps, n=20)[-1]


async def embed(port: int, words: Words) -> float:
    """256 texts, in eight requests at once."""
    texts = [words.text(24 + i % 64) for i in range(256)]

    async def one(part: list[str]) -> None:
        status, body = await client.fetch(port, "POST", "/v1/embeddings", {"model": "bench", "input": part})
        if status != 200 or body.count(b'"embedding"') < len(part):
            raise client.BadReply(body[:500].decode("utf-8", "replace"))

    started = time.perf_counter()
    await _together(one(texts[i : i + 32]) for i in range(0, 256, 32))
    return 256 / (time.perf_counter() - started)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "active": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "active"],
}


async def json(port: int, words: Words) -> float:
    kind = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    prompts = [words.text(40) for _ in range(12)]
    return await _rate(
        4,
        [lambda p=p: client.chat(port, _user(p), 64, response_format=kind) for p in prompts],  # type: ignore[misc]
    )


SCENARIOS = [
    Scenario("single", "one stream, 60-word prompts, 96 tokens", "tok/s", True, 0.97, single),
    Scenario("conc8", "8 at once, 24 requests of 200 words, 48 tokens", "tok/s", True, 0.97, conc8),
    Scenario(
        "prefix", "8 at once, 48 requests over 12 system prompts of 900 words", "tok/s", True, 2.0, prefix
    ),
    Scenario("chat", "12 conversations of five turns", "tok/s", True, 1.1, chat),
    Scenario("burst32", "32 at once over one 300-word system prompt", "tok/s", True, 1.0, burst32),
    Scenario("longmix", "gap of 4 streams while 4,000-token prompts arrive (p95)", "ms", False, 0.5, longmix),
    Scenario("json", "12 answers held to a schema, 4 at once", "tok/s", True, None, json),
    Scenario("embed", "256 texts in 8 requests at once", "texts/s", True, 1.0, embed, embedding=True),
]

"""Loaded models for the runner's tests, in this process (for its parts) or in a child (for the whole)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from llm_engine.runner.messages import (
    Done,
    Failed,
    GenerateRequest,
    LoadSpec,
    Queued,
    TokenLogprob,
    Tokens,
    Usage,
)
from llm_engine.scheduler.process import RunnerProcess

from tests.support import random_gguf


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_gguf.build(tmp_path_factory.mktemp("gguf") / "random.gguf")


@dataclass
class Answer:
    """Everything one branch of a request said."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: str = ""
    usage: Usage = field(default_factory=Usage)
    stop_string: str | None = None
    positions: list[int] = field(default_factory=list)


class RequestFailed(Exception):
    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.kind}: {failed.text}")
        self.kind = failed.kind


async def ask_all(runner: RunnerProcess, request: GenerateRequest) -> list[Answer]:
    answers = [Answer() for _ in range(max(1, request.n))]
    async with aclosing(runner.generate(request)) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise RequestFailed(event)
            if isinstance(event, Queued):
                answers[0].positions.append(event.position)
            elif isinstance(event, Tokens):
                answer = answers[event.index]
                answer.text += event.text
                answer.ids += event.ids
                answer.logprobs += event.logprobs
            elif isinstance(event, Done):
                answer = answers[event.index]
                answer.reason, answer.usage, answer.stop_string = event.reason, event.usage, event.stop_string
    return answers


async def ask(runner: RunnerProcess, request: GenerateRequest) -> Answer:
    return (await ask_all(runner, request))[0]


class Runners:
    """Starts runners and stops them all at the end of a test."""

    def __init__(self) -> None:
        self._all: list[RunnerProcess] = []

    async def __call__(self, model: Path, **settings: object) -> RunnerProcess:
        defaults: dict[str, object] = {"num_ctx": 512, "num_parallel": 4, "threads": 1}
        spec = LoadSpec(str(model), **{**defaults, **settings})  # type: ignore[arg-type]
        runner = await RunnerProcess.start(spec)
        self._all.append(runner)
        return runner

    async def close(self) -> None:
        for runner in self._all:
            await runner.stop()


@pytest.fixture
async def start() -> AsyncIterator[Runners]:
    runners = Runners()
    yield runners
    await runners.close()


@pytest.fixture(scope="session")
def vocab(random_model: Path) -> Iterator[object]:
    """The byte vocabulary, loaded into this process."""
    from llm_engine.runner import library
    from llm_engine.runner.model import Model
    from llm_engine.runner.vocab import Vocab

    library.start()
    model = Model(LoadSpec(str(random_model)), lambda _: True)
    yield Vocab(model.handle)
    model.free()

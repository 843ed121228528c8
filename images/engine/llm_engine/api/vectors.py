"""Embeddings for every API: which inputs, how they are cut, and the vectors that come back.

All inputs of a request go to the runner at once, which batches them. Vectors stay bytes until they are
written: a list of Python floats costs thirty times the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llm_engine.api.endpoint import Call
from llm_engine.api.lookup import files_of, find_model, options_for
from llm_engine.runner.messages import EmbedRequest
from llm_engine.scheduler.process import RunnerError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Vector: TypeAlias = "npt.NDArray[np.float32]"


@dataclass(frozen=True)
class Embedded:
    vectors: Sequence[Vector]
    tokens: int
    load_seconds: float


def listed(items: Sequence[bytes]) -> bytes:
    """A JSON list of documents that were written one by one: one call for all of a large batch would keep
    every other thread waiting."""
    return b"[" + b",".join(items) + b"]"


async def embed(
    call: Call,
    name: str,
    inputs: Sequence[str | Sequence[int]],
    *,
    truncate: bool = True,
    dimensions: int | None = None,
    normalize: bool = True,
    keep_alive: float | None = None,
    options: dict[str, object] | None = None,
    missing: str = 'model "{}" not found, try pulling it first',
) -> Embedded:
    """No inputs: the model is loaded and nothing else."""
    model = await find_model(call, name, missing)
    wanted = options_for(model, options)
    files = files_of(model)
    async with call.engine.use(call, files, wanted.runner, keep_alive, load_only=not inputs) as lease:
        if not inputs:
            return Embedded([], 0, lease.load_seconds)
        request = EmbedRequest(
            inputs,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
            pooling=wanted.pooling,
            # The model may be loaded with more: the same request must give the same vector all the same.
            longest=wanted.runner.num_ctx,
        )
        try:
            result = await lease.runner.embed(request)
        except RunnerError as error:
            raise await call.engine.failure(error.kind, error.text, lease.runner) from None
        tokens = sum(result.tokens)
        call.engine.metrics.prompt_read(model.short_name, call.key, tokens)
        vectors = await asyncio.to_thread(_vectors, result.vectors)
        return Embedded(vectors, tokens, lease.load_seconds)


def _vectors(raws: Sequence[bytes]) -> list[Vector]:
    """In a thread: the first time, the import takes a while."""
    import numpy as np  # here: a server that makes no vectors starts without it

    return [np.frombuffer(raw, "<f4") for raw in raws]

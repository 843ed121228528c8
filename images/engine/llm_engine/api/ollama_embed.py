"""POST /api/embed and its predecessor /api/embeddings."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from llm_engine.api import goencode
from llm_engine.api.endpoint import Call, Reply, json_reply
from llm_engine.api.errors import bad_request
from llm_engine.api.ollama_types import EmbeddingRequest, EmbedRequest
from llm_engine.api.vectors import embed, listed
from llm_engine.durations import nanoseconds


async def embed_route(call: Call) -> Reply:
    request = await call.json(EmbedRequest)
    inputs = _inputs(request.input)
    result = await embed(
        call,
        request.model,
        inputs,
        truncate=request.truncate is not False,
        dimensions=request.dimensions if request.dimensions > 0 else None,
        keep_alive=request.keep_alive.seconds if request.keep_alive else None,
        options=request.options,
    )
    vectors = await asyncio.to_thread(lambda: listed([goencode.dumps(vector) for vector in result.vectors]))
    document: dict[str, Any] = {"model": request.model, "embeddings": orjson.Fragment(vectors)}
    if inputs:
        document["total_duration"] = nanoseconds(time.monotonic() - call.started)
        document["load_duration"] = nanoseconds(result.load_seconds)
        document["prompt_eval_count"] = result.tokens
    return json_reply(document)


def _inputs(value: Any) -> list[str]:
    if value in (None, ""):
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise bad_request("invalid input type")


async def embeddings_route(call: Call) -> Reply:
    """One prompt, a vector as the model made it: not normalised."""
    request = await call.json(EmbeddingRequest)
    if not request.model:
        raise bad_request("model is required")
    result = await embed(
        call,
        request.model,
        [request.prompt] if request.prompt else [],
        normalize=False,
        keep_alive=request.keep_alive.seconds if request.keep_alive else None,
        options=request.options,
    )
    return json_reply({"embedding": result.vectors[0] if result.vectors else []})

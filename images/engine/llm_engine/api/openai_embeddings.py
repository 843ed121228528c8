"""POST /v1/embeddings and /v1/rerank."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import orjson

from llm_engine.api import goencode
from llm_engine.api.endpoint import Call, Reply, json_reply
from llm_engine.api.errors import bad_request
from llm_engine.api.lookup import files_of, find_model, options_for
from llm_engine.api.openai_types import EmbeddingsRequest
from llm_engine.api.openai_types import RerankRequest as RerankBody
from llm_engine.api.vectors import Embedded, Vector, embed, listed
from llm_engine.runner.messages import RerankRequest
from llm_engine.scheduler.process import RunnerError


async def embeddings(call: Call) -> Reply:
    request = await call.json(EmbeddingsRequest)
    if not request.model:
        raise bad_request("model is required", param="model")
    if request.encoding_format not in ("", "float", "base64"):
        raise bad_request(
            f"Invalid value for 'encoding_format' = {request.encoding_format}. "
            "Supported values: ['float', 'base64'].",
            param="encoding_format",
        )
    inputs = _inputs(request.input)
    result = await embed(
        call, request.model, inputs, dimensions=request.dimensions if request.dimensions > 0 else None
    )
    return await asyncio.to_thread(_reply, request, result)


def _reply(request: EmbeddingsRequest, result: Embedded) -> Reply:
    data = [
        goencode.dumps(
            {"object": "embedding", "embedding": _vector(vector, request.encoding_format), "index": index}
        )
        for index, vector in enumerate(result.vectors)
    ]
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    document = {
        "object": "list",
        "data": orjson.Fragment(listed(data)),
        "model": request.model,
        "usage": usage,
    }
    return json_reply(document)


def _inputs(value: Any) -> Sequence[str | Sequence[int]]:
    """A text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise bad_request("invalid input", param="input")
    if all(isinstance(item, str) for item in value):
        return value
    if all(map(_is_token, value)):
        return [value]
    if all(isinstance(item, list) and item and all(map(_is_token, item)) for item in value):
        return value
    raise bad_request("invalid input type", param="input")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _vector(vector: Vector, encoding: str) -> Vector | str:
    return base64.b64encode(vector.tobytes()).decode() if encoding == "base64" else vector


async def rerank(call: Call) -> Reply:
    """The documents in order of how well they answer the query, in the shape of Jina and Cohere."""
    request = await call.json(RerankBody)
    if not request.model:
        raise bad_request("model is required", param="model")
    if not request.query:
        raise bad_request("query is required", param="query")
    documents = _documents(request.documents)
    model = await find_model(call, request.model)
    wanted = options_for(model)
    async with call.engine.use(call, files_of(model), wanted.runner, None) as lease:
        try:
            result = await lease.runner.rerank(RerankRequest(request.query, documents))
        except RunnerError as error:
            raise await call.engine.failure(error.kind, error.text, lease.runner) from None
        tokens = sum(result.tokens)
        call.engine.metrics.prompt_read(model.short_name, call.key, tokens)
    order = sorted(range(len(documents)), key=lambda index: result.scores[index], reverse=True)
    if request.top_n is not None and request.top_n > 0:
        order = order[: request.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        entry: dict[str, Any] = {"index": index, "relevance_score": result.scores[index]}
        if request.return_documents:
            entry["document"] = {"text": documents[index]}
        results.append(entry)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply({"object": "list", "model": request.model, "results": results, "usage": usage})


def _documents(value: Sequence[Any]) -> list[str]:
    texts: list[str] = []
    for item in value:
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise bad_request("documents must be a list of texts", param="documents")
        texts.append(text)
    if not texts:
        raise bad_request("documents must be a list of texts", param="documents")
    return texts

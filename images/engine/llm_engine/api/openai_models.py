"""GET /v1/models and /v1/models/X."""

from __future__ import annotations

import asyncio

from llm_engine.api.endpoint import Call, Reply, json_reply
from llm_engine.api.lookup import find_model
from llm_engine.api.openai_types import ModelOut
from llm_engine.models.model import Model


async def list_models(call: Call) -> Reply:
    """`data` is a list even when there are no models; Ollama says null, which breaks clients."""

    def collect() -> Reply:
        data = [_model(model) for model in call.engine.models.store.list()]
        return json_reply({"object": "list", "data": data})

    return await asyncio.to_thread(collect)


async def one_model(call: Call) -> Reply:
    model = await find_model(call, call.path_params["model"])
    return json_reply(_model(model))


def _model(model: Model) -> ModelOut:
    return {
        "id": model.short_name,
        "object": "model",
        "created": int(model.modified_at.timestamp()),
        "owned_by": model.name.namespace,
    }

"""POST /api/pull and /api/push."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from llm_engine.api import progress
from llm_engine.api.endpoint import Call, Reply, Stream
from llm_engine.api.errors import bad_request
from llm_engine.api.model_types import PullRequest, PushRequest
from llm_engine.api.ollama_models import parse_name
from llm_engine.models.names import Name
from llm_engine.models.registry.push import push
from llm_engine.models.status import Status


async def pull(call: Call) -> Reply | Stream:
    request = await call.json(PullRequest)
    name = parse_name(request.model or request.name)
    return await progress.reply(call.engine.puller.pull(name, insecure=request.insecure), request.stream)


async def push_route(call: Call) -> Reply | Stream:
    request = await call.json(PushRequest)
    text = request.model or request.name
    if not text:
        raise bad_request("model is required")
    return await progress.reply(_push(call, parse_name(text), request.insecure), request.stream)


async def _push(call: Call, name: Name, insecure: bool) -> AsyncGenerator[Status, None]:
    """An unknown model is told in the stream, as Ollama does, but in words that say what is wrong."""
    model = call.engine.models.store.resolve(name)
    target = Name(model.name.host, model.name.namespace, model.name.model, model.name.tag, name.scheme)
    async for status in push(call.engine.puller, model, insecure=insecure, name=target):
        yield status

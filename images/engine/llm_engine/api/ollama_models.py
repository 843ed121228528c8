"""GET /api/tags, POST /api/show, POST /api/copy, DELETE /api/delete."""

from __future__ import annotations

import asyncio
import contextlib

from llm_engine.api import modelfacts
from llm_engine.api.endpoint import Call, Reply, json_reply
from llm_engine.api.errors import ApiError, bad_request, not_found
from llm_engine.api.model_types import CopyRequest, DeleteRequest, ModelOut, ShowRequest
from llm_engine.models.errors import CorruptManifest, InvalidName, ModelNotFound, ModelsError
from llm_engine.models.model import Model
from llm_engine.models.names import Name


def parse_name(text: str, refusal: str = "invalid model name") -> Name:
    try:
        return Name.parse(text)
    except InvalidName:
        raise bad_request(refusal) from None


def model_error(error: ModelsError) -> ApiError:
    """A room's error as the client's, with its own status and words."""
    return ApiError(error.status, str(error))


async def tags(call: Call) -> Reply:
    def collect() -> list[ModelOut]:
        found = []
        for model in call.engine.models.store.list():
            with contextlib.suppress(ModelsError):  # removed or broken since it was listed
                found.append(modelfacts.listed(model))
        return found

    return json_reply({"models": await asyncio.to_thread(collect)})


async def show(call: Call) -> Reply:
    request = await call.json(ShowRequest)
    text = request.model or request.name
    if not text:
        raise bad_request("model is required")
    name = parse_name(text)

    def describe() -> Reply:
        model: Model = call.engine.models.store.resolve(name)
        facts = modelfacts.shown(
            model,
            verbose=request.verbose,
            system=request.system,
            template=request.template,
            options=request.options,
        )
        return json_reply(facts)

    try:
        return await asyncio.to_thread(describe)
    except ModelNotFound:
        raise not_found(f"model '{name.short}' not found") from None
    except ModelsError as error:
        raise model_error(error) from None


async def copy(call: Call) -> Reply:
    request = await call.json(CopyRequest)
    source = parse_name(request.source, f'source "{request.source}" is invalid')
    destination = parse_name(request.destination, f'destination "{request.destination}" is invalid')
    try:
        await asyncio.to_thread(call.engine.models.store.copy, source, destination)
    except ModelNotFound:
        raise not_found(f'model "{request.source}" not found') from None
    except ModelsError as error:
        raise model_error(error) from None
    return Reply(media_type=None)


async def delete(call: Call) -> Reply:
    request = await call.json(DeleteRequest)
    text = request.model or request.name
    if not text:
        raise bad_request("model is required")
    name = parse_name(text, f'name "{text}" is invalid')
    try:
        await asyncio.to_thread(call.engine.models.store.delete, name)
    except ModelNotFound:
        raise not_found(f"model '{text}' not found") from None
    except CorruptManifest as error:
        raise model_error(error) from None
    return Reply(media_type=None)

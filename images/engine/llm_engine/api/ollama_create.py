"""POST /api/create: a model from another one, or from files that were uploaded as blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from llm_engine.api import progress
from llm_engine.api.endpoint import Call, Reply, Stream
from llm_engine.api.errors import bad_request
from llm_engine.api.model_types import CreateRequest
from llm_engine.api.ollama_blobs import parse_digest
from llm_engine.api.ollama_messages import stored_message
from llm_engine.api.ollama_models import model_error, parse_name
from llm_engine.models.create import Recipe, check, create
from llm_engine.models.digests import Digest
from llm_engine.models.errors import ModelNotFound, ModelsError
from llm_engine.models.model import Model
from llm_engine.models.names import Name
from llm_engine.models.status import Status


async def create_route(call: Call) -> Reply | Stream:
    """What can be known to be wrong is refused with a status before the stream begins."""
    request = await call.json(CreateRequest)
    name = parse_name(request.model or request.name)
    store = call.engine.models.store
    files, adapters, drafts = (
        _digests(given) for given in (request.files, request.adapters, request.draft_files)
    )
    for digest in (*files.values(), *adapters.values(), *drafts.values()):
        if not await asyncio.to_thread(store.has_whole, digest):
            raise bad_request(f"blob {digest} was not uploaded")
    if not request.from_ and not files:
        raise bad_request("neither 'from' or 'files' was specified")
    base_name = parse_name(request.from_) if request.from_ else None
    base, absent = _base(call, base_name)
    recipe = Recipe(
        name=name,
        base=base,
        files=files,
        adapters=adapters,
        drafts=drafts,
        quantize=request.quantize or request.quantization,
        draft_quantize=request.draft_quantize,
        template=request.template,
        system=request.system or None,
        licenses=[text for text in (request.license.values if request.license else []) if text],
        params=request.parameters,
        messages=[stored_message(item) for item in request.messages],
        config={
            **request.info,
            "renderer": request.renderer,
            "parser": request.parser,
            "requires": request.requires,
            "remote_host": request.remote_host,
        },
    )
    try:
        if not absent:
            check(recipe)
    except ModelsError as error:
        raise model_error(error) from None
    return await progress.reply(_create(call, recipe, base_name if absent else None), request.stream)


def _base(call: Call, name: Name | None) -> tuple[Model | None, bool]:
    """The model to begin from; the flag says that it must be pulled first."""
    if name is None:
        return None, False
    try:
        return call.engine.models.store.resolve(name), False
    except ModelNotFound:
        return None, True
    except ModelsError as error:
        raise model_error(error) from None


async def _create(call: Call, recipe: Recipe, missing: Name | None) -> AsyncGenerator[Status, None]:
    store = call.engine.models.store
    if missing is not None:
        async for status in call.engine.puller.pull(missing):
            if status.status != "success":
                yield status
        recipe = replace(recipe, base=store.resolve(missing))
    async for status in progress.from_thread(lambda: create(store, recipe)):
        yield status


def _digests(files: Mapping[str, str]) -> dict[str, Digest]:
    found = {}
    for name, digest in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise bad_request("file path must be relative")
        found[name] = parse_digest(digest)
    return found

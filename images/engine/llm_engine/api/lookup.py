"""From the name a client typed to a model, and what each room needs to know of it.

A name is looked up anew for every request (a model may have been replaced); what its files say is read once
per
manifest, off the event loop, because the header of a large model takes a while.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_engine.api.endpoint import Call
from llm_engine.api.errors import ApiError, bad_request, not_found
from llm_engine.models.errors import InvalidGGUF, InvalidName, ModelNotFound, ModelsError
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.gguf.values import Array
from llm_engine.models.model import Model
from llm_engine.models.store import ModelStore
from llm_engine.scheduler import memory, options
from llm_engine.scheduler.options import InvalidOption, Options
from llm_engine.scheduler.plan import ModelFiles

MISSING = "model '{}' not found"
_KEPT = 256


async def find_model(call: Call, name: str, missing: str = MISSING) -> Model:
    try:
        return await call.engine.models.get(name)
    except (ModelNotFound, InvalidName):
        raise not_found((missing if name.strip() else MISSING).format(name)) from None
    except ModelsError as error:
        raise ApiError(error.status, str(error)) from None


class Models:
    """The store, and what was read of its models."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.read: dict[tuple[str, str], Model] = {}

    async def get(self, name: str) -> Model:
        model = self.store.resolve(name)
        model.check_whole()  # llama.cpp would say it with a path, after a while
        key = (model.short_name, model.digest)
        known = self.read.get(key)
        if known is None:
            await asyncio.to_thread(_read, model)
            while len(self.read) >= _KEPT:
                del self.read[next(iter(self.read))]
            known = self.read[key] = model
        return known

    def named(self, name: str) -> Model | None:
        """For listings: a model deleted while it is loaded has no entry any more."""
        try:
            model = self.store.resolve(name)
        except ModelsError:
            return None
        return self.read.get((model.short_name, model.digest), model)

    def key(self, name: str) -> str | None:
        """What a loaded model of this name is told by; None where there is no such model any more."""
        try:
            model = self.store.resolve(name)
        except ModelNotFound:
            return None
        return _paths(model, memory.Shape()).key if model.model_paths else None


def _read(model: Model) -> None:
    """Everything that is read from disk, so that later looks at it cost nothing."""
    if model.gguf is None:
        raise ApiError(400, f'"{model.short_name}" has no weights that this engine can run')
    _ = (model.config, model.template, model.system, model.params, model.messages, model.capabilities)
    files_of(model)


def options_for(
    model: Model,
    given: Mapping[str, Any] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Options:
    """Defaults, the model's parameters, the request: later ones win. Stop texts are added to those of the
    model: a client that brings its own must not lose the model's end marks."""
    try:
        merged = options.parse(fallbacks, model.params, given, overrides)
        _check_scales(model, merged)
        if overrides and "stop" in overrides:
            return options.with_stops(merged, options.parse(model.params, given).stop)
        return merged
    except InvalidOption as error:
        raise bad_request(str(error), param="options") from None


def _check_scales(model: Model, merged: Options) -> None:
    given, adapters = len(merged.runner.adapter_scale or ()), len(model.adapter_paths)
    if given > adapters:
        raise InvalidOption(f'option "adapter_scale" has {given} values for {adapters} adapters')


def files_of(model: Model) -> ModelFiles:
    return _files(model.short_name, model.digest, model.model_path, model)


@functools.lru_cache(maxsize=_KEPT)
def _files(name: str, digest: str, path: object, model: Model) -> ModelFiles:
    gguf = model.gguf
    assert gguf is not None
    extras = [*model.adapter_paths, *model.projector_paths]
    if model.draft_path is not None:
        extras.append(model.draft_path)
    draft = _header(model.draft_path)
    shape = replace(
        _shape(gguf),
        extra=sum(extra.stat().st_size for extra in extras if extra.exists()),
        beside=sum(
            memory.projector_beside(header.metadata)
            for header in map(_header, model.projector_paths)
            if header
        ),
        draft=_shape(draft) if draft else None,
    )
    return replace(_paths(model, shape), name=name, embedding=embeds_only(model))


def _header(path: Path | None) -> GGUFFile | None:
    """None also where it cannot be read: whoever loads the model is told why."""
    try:
        return read_gguf(path) if path is not None else None
    except (OSError, InvalidGGUF):
        return None


def _shape(gguf: GGUFFile) -> memory.Shape:
    metadata: dict[str, Any] = dict(gguf.metadata)
    heads = f"{gguf.architecture}.attention.head_count_kv"
    if isinstance(metadata.get(heads), Array):
        metadata[heads] = gguf.array(heads)
    if isinstance(tokens := metadata.get("tokenizer.ggml.tokens"), Array):
        metadata.setdefault(f"{gguf.architecture}.vocab_size", tokens.count)
    return memory.shape_of(metadata, [(tensor.name, tensor.size) for tensor in gguf.tensors])


def _paths(model: Model, shape: memory.Shape) -> ModelFiles:
    projectors = model.projector_paths
    try:
        scales = options.parse({"adapter_scale": model.params.get("adapter_scale")}).runner.adapter_scale
    except InvalidOption:  # whoever uses the model is told
        scales = None
    return ModelFiles(
        name=model.short_name,
        path=str(model.model_path),
        splits=tuple(map(str, model.model_paths[1:])),
        shape=shape,
        adapters=tuple(str(adapter) for adapter in model.adapter_paths),
        scales=scales or (),
        mmproj=str(projectors[0]) if projectors else None,
        draft=str(model.draft_path) if model.draft_path else None,
    )


def embeds_only(model: Model) -> bool:
    return "embedding" in model.capabilities and "completion" not in model.capabilities


def details_of(model: Model | None) -> dict[str, Any]:
    """The short description that listings carry."""
    if model is None:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "",
            "families": None,
            "parameter_size": "",
            "quantization_level": "",
        }
    config = model.config
    return {
        "parent_model": "",
        "format": config.model_format or "gguf",
        "family": config.model_family,
        "families": list(config.model_families) or None,
        "parameter_size": config.model_type,
        "quantization_level": config.file_type,
    }

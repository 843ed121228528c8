"""The configuration of a model, from the headers of its weights and from the model it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_engine.models import human
from llm_engine.models.config import ModelConfig
from llm_engine.models.errors import CreateError
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.gguf.merge import joined
from llm_engine.models.manifests import Layer
from llm_engine.models.model import Model
from llm_engine.models.store import ModelStore

_LISTS = ("capabilities",)
_NUMBERS = ("context_length", "embedding_length")
_TEXTS = ("renderer", "parser", "requires", "remote_host", "remote_model", "base_name")
# What a client calls it -> what the configuration calls it.
_OTHER_NAMES = {
    "model_family": "model_family",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}


def inherit(base: Model) -> tuple[list[Layer], ModelConfig]:
    """The layers of a base, marked as coming from it, and its configuration."""
    layers = [
        Layer(layer.media_type, layer.digest, layer.size, layer.origin or base.short_name, layer.name)
        for layer in base.manifest.layers
    ]
    return layers, base.config


def describe(
    store: ModelStore, layers: Sequence[Layer], config: ModelConfig, given: Mapping[str, Any]
) -> ModelConfig:
    families: list[str] = list(config.model_families)
    for kind in ("model", "projector"):
        own = [layer for layer in layers if layer.kind == kind and not layer.origin]
        headers = [read_gguf(store.blobs.path(layer.digest)) for layer in own]
        if kind == "model" and headers:
            headers = [joined(headers)]
        families += [gguf.architecture for gguf in headers if gguf.architecture not in families]
        if kind == "model" and headers:
            gguf = headers[0]
            config = replace(
                config,
                model_format="gguf",
                model_family=gguf.architecture,
                model_type=human.number(gguf.parameter_count),
                file_type=gguf.file_type,
            )
    config = replace(config, model_families=tuple(families))
    return replace(config, **_checked(given))


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        if value is None or value == "":
            continue
        name = _OTHER_NAMES.get(key, key)
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise CreateError(f"{key} must be a list of strings")
            found[name] = tuple(value)
        elif name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise CreateError(f"{key} must be a number")
            found[name] = int(value)
        elif name in _TEXTS or key in _OTHER_NAMES:
            if not isinstance(value, str):
                raise CreateError(f"{key} must be a string")
            found[name] = value
        else:
            raise CreateError(f"unknown model info {key!r}")
    return found

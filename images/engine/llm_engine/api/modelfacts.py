"""What listings and `show` say of a model, taken from its configuration and the header of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_engine.api.goencode import timestamp
from llm_engine.api.model_types import Details, ModelOut
from llm_engine.models.canonical import go_float
from llm_engine.models.errors import BlobMissing, InvalidGGUF
from llm_engine.models.gguf import Array, GGUFFile
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.model import Model
from llm_engine.models.written import modelfile

# Too long for an answer that people read; `verbose` does not bring it back, the template has a field of its
# own.
_HIDDEN = ("general.name", "tokenizer.chat_template")


def details(model: Model, *, lengths: bool = True) -> Details:
    config = model.config
    origins = [layer.origin for layer in model.manifest.of_kind("model") if layer.origin]
    found = Details(
        parent_model=origins[0] if origins else "",
        format=config.model_format,
        family=config.model_family,
        families=list(config.model_families) or None,
        parameter_size=config.model_type,
        quantization_level=config.file_type,
    )
    gguf = header(model) if lengths else None
    if gguf is not None:
        found["context_length"] = gguf.get(".context_length", 0)
        found["embedding_length"] = gguf.get(".embedding_length", 0)
    return found


def header(model: Model) -> GGUFFile | None:
    """The header of the weights, if there are any and they can be read."""
    try:
        return model.gguf
    except (InvalidGGUF, BlobMissing):
        return None


def listed(model: Model) -> ModelOut:
    found = ModelOut(
        name=model.short_name,
        model=model.short_name,
        modified_at=timestamp(model.modified_at),
        size=model.size,
        digest=model.digest,
        details=details(model),
        capabilities=list(model.capabilities),
    )
    if model.config.remote_host:
        found["remote_host"] = model.config.remote_host
        found["remote_model"] = model.config.remote_model
    return found


def shown(
    model: Model,
    *,
    verbose: bool = False,
    system: str = "",
    template: str = "",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer of `show`; fields that would be empty are left out, as Ollama does."""
    params = {**model.params, **(options or {})}
    text = template or (model.template if model.template is not None else "")
    document: dict[str, Any] = {
        "license": "\n".join(model.licenses),
        "modelfile": modelfile(model, system=system, template=text, params=params),
        "parameters": parameters_text(params),
        "template": text,
        "system": system or model.system,
        "renderer": model.config.renderer,
        "parser": model.config.parser,
        "details": details(model, lengths=False),
        "messages": model.messages,
        "remote_model": model.config.remote_model,
        "remote_host": model.config.remote_host,
    }
    gguf = header(model)
    document["model_info"] = model_info(gguf, verbose) if gguf else {}
    projectors = model.projector_paths
    if projectors and projectors[0].is_file():
        document["projector_info"] = model_info(read_gguf(projectors[0]), verbose)
    if gguf:
        document["tensors"] = [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape)}
            for tensor in gguf.tensors
        ]
    document["capabilities"] = list(model.capabilities)
    document["requires"] = model.config.requires
    document["modified_at"] = timestamp(model.modified_at)
    always = ("details", "model_info", "modified_at")
    return {key: value for key, value in document.items() if value or key in always}


def model_info(gguf: GGUFFile, verbose: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"general.parameter_count": gguf.parameter_count}
    for key, value in gguf.metadata.items():
        if key in _HIDDEN:
            continue
        found[key] = (gguf.array(key) if verbose else None) if isinstance(value, Array) else value
    return dict(sorted(found.items()))


def parameters_text(params: Mapping[str, Any]) -> str:
    """One line per value; texts as Go quotes them."""
    lines = []
    for name, value in params.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"{name:<30} {_go_value(item)}")
    return "\n".join(lines)


def _go_value(value: Any) -> str:
    if isinstance(value, float):
        return go_float(value)
    return json.dumps(value, ensure_ascii=False)

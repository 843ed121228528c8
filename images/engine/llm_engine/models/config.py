"""The configuration blob of a model: what kind of model it is, in the key order and with the constants that
Ollama writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from llm_engine.models.canonical import encode
from llm_engine.models.errors import CorruptManifest

MAX_CONFIG = 1024 * 1024
# Always written; the others only when they say something.
_REQUIRED = (
    "model_format",
    "model_family",
    "model_families",
    "model_type",
    "file_type",
    "architecture",
    "os",
)


@dataclass(frozen=True)
class ModelConfig:
    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    architecture: str = "amd64"
    os: str = "linux"

    @classmethod
    def parse(cls, raw: bytes, where: str) -> ModelConfig:
        """What is understood of a configuration; unknown keys are other programs' business."""
        try:
            document = json.loads(raw)
            if not isinstance(document, dict):
                raise ValueError("the configuration is not an object")
            return cls(
                **{
                    f.name: _field(f.name, f.default, document[f.name])
                    for f in fields(cls)
                    if f.name in document
                }
            )
        except (ValueError, RecursionError) as error:
            raise CorruptManifest(where, str(error)) from None

    def encode(self) -> bytes:
        document: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value or item.name in _REQUIRED:
                # Go writes a nil slice as null.
                document[item.name] = (list(value) or None) if isinstance(value, tuple) else value
        return encode(document)


def _field(name: str, default: Any, value: Any) -> Any:
    if value is None:
        return default
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} of the configuration is not a list of texts")
        return tuple(value)
    if not isinstance(value, type(default)) or isinstance(value, bool):
        raise ValueError(f"{name} of the configuration is not a {type(default).__name__}")
    return value

"""The JSON Schema of stack.yaml for editors: it takes what the loader takes, as people write it.

Made from the model. What the model alone cannot tell is added here: a key may be left without a value, any
number or choice may be a reference to the environment, and defaults are shown as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from stackctl.config.sample import classes, fields, written_as
from stackctl.config.stack import StackConfig

REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_]", "description": "from the environment"}
NOTHING = {"type": "null"}
_NARROW = ("enum", "const", "pattern")
_SHOWN = ("title", "description", "default")


def json_schema() -> dict[str, Any]:
    schema = StackConfig.model_json_schema()
    definitions = schema.get("$defs", {})
    models: set[type[BaseModel]] = {StackConfig, *_below(StackConfig)}
    for model in models:
        own = schema if model is StackConfig else definitions.get(model.__name__, {})
        for part in (own, *own.get("anyOf", ())):
            _complete(part.get("properties", {}), model)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "stack.yaml"
    loose: dict[str, Any] = _loosen(schema)
    return loose


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for _, field in fields(model):
        for nested in classes(field.annotation):
            if issubclass(nested, BaseModel):
                yield nested
                yield from _below(nested)


def _complete(properties: dict[str, Any], model: type[BaseModel]) -> None:
    for key, field in fields(model):
        own = properties.get(key, {})
        written = written_as(field)
        if written is not None and isinstance(own.get("default"), int | float):
            own["default"] = written.text(own["default"])


def _loosen(part: Any) -> Any:
    if isinstance(part, list):
        return [_loosen(one) for one in part]
    if not isinstance(part, dict):
        return part
    loose: dict[str, Any] = {}
    for key, value in part.items():
        if key == "properties":
            loose[key] = {name: _or(_loosen(own), NOTHING) for name, own in value.items()}
        elif key == "$defs":
            loose[key] = {name: _loosen(own) for name, own in value.items()}
        else:
            loose[key] = value if key in ("default", "enum", "const", "discriminator") else _loosen(value)
    narrow = loose.get("type") in ("integer", "number", "boolean") or any(word in loose for word in _NARROW)
    return _or(loose, REFERENCE) if narrow else loose


def _or(part: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    shown = {name: part[name] for name in _SHOWN if name in part}
    core = {name: value for name, value in part.items() if name not in _SHOWN}
    return {**shown, "anyOf": [*(core["anyOf"] if list(core) == ["anyOf"] else [core]), other]}

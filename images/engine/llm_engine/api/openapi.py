"""The OpenAPI description, generated from the route table and the types the handlers themselves use."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from llm_engine import __version__
from llm_engine.api import anthropic_types, ollama_types, openai_types
from llm_engine.api.endpoint import Endpoint
from llm_engine.api.errors import Dialect
from llm_engine.api.gojson import wire_name

_REF = "#/components/schemas/{model}"
_ERRORS: dict[Dialect, Any] = {
    Dialect.OLLAMA: ollama_types.ErrorReply,
    Dialect.OPENAI: openai_types.ErrorReply,
    Dialect.ANTHROPIC: anthropic_types.ErrorReply,
}
_CUSTOM: dict[str, dict[str, Any]] = {
    "KeepAlive": {
        "anyOf": [{"type": "number"}, {"type": "string"}],
        "description": "Seconds or a Go duration.",
    },
    "Think": {"anyOf": [{"type": "boolean"}, {"enum": list(ollama_types.THINK_LEVELS)}]},
    "ImageData": {"type": "string", "contentEncoding": "base64"},
    "Role": {"type": "string"},
}


def describe(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    components = _Components()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        for method in endpoint.methods:
            paths.setdefault(endpoint.path, {})[method.lower()] = _operation(endpoint, method, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llm-engine", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components.schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, method: str, components: _Components) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{endpoint.path}").strip("_"),
        "summary": endpoint.summary,
        "responses": _responses(endpoint, method, components),
    }
    names = re.findall(r"\{(\w+)\}", endpoint.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    if endpoint.request is not None:
        schema = components.request(endpoint.request)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": endpoint.body}
    return operation


def _responses(endpoint: Endpoint, method: str, components: _Components) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if method == "HEAD":
        pass
    elif endpoint.reply is str:
        content["text/plain"] = {"schema": {"type": "string"}}
    elif endpoint.reply is not None:
        content["application/json"] = {"schema": components.reply(endpoint.reply)}
    if endpoint.stream and method != "HEAD":
        # A stream is many documents, which OpenAPI cannot describe one by one.
        content[endpoint.stream] = {"schema": {}}
    responses: dict[str, Any] = {
        **{
            str(status): {"description": "OK", **({"content": content} if content else {})}
            for status in endpoint.replies
        },
        "default": {
            "description": "What went wrong, in the shape of this API.",
            "content": {"application/json": {"schema": components.reply(_ERRORS[endpoint.dialect])}},
        },
    }
    if method == "HEAD":
        responses["default"] = {"description": "What went wrong."}
    return responses


class _Components:
    """Named schemas, each made once."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def reply(self, cls: Any) -> dict[str, Any]:
        prefix = _name(cls).rpartition(".")[0]
        template = _REF.format(model=f"{prefix}.{{model}}")
        schema = TypeAdapter(cls).json_schema(ref_template=template, mode="serialization")
        inner = schema.pop("$defs", {})
        self.schemas.update({f"{prefix}.{name}": found for name, found in inner.items()})
        self.schemas[_name(cls)] = schema
        return {"$ref": _REF.format(model=_name(cls))}

    def request(self, cls: Any) -> dict[str, Any]:
        """A request type: every field is optional and may be null, as Go's decoder has it."""
        name = _name(cls)
        if name not in self.schemas:
            self.schemas[name] = {}
            hints = typing.get_type_hints(cls)
            self.schemas[name] = {
                "type": "object",
                "properties": {
                    wire_name(item): self._field(hints[item.name]) for item in dataclasses.fields(cls)
                },
            }
        return {"$ref": _REF.format(model=name)}

    def _field(self, annotation: Any) -> dict[str, Any]:
        schema = self._plain(annotation)
        return {} if schema == {} else {"anyOf": [schema, {"type": "null"}]}

    def _plain(self, annotation: Any) -> dict[str, Any]:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if type(None) in arguments:
            return self._plain(next(item for item in arguments if item is not type(None)))
        if origin is list:
            return {"type": "array", "items": self._field(arguments[0])}
        if origin is dict:
            inner = self._field(arguments[1])
            return {"type": "object", **({"additionalProperties": inner} if inner else {})}
        if annotation is Any:
            return {}
        kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
        if annotation in kinds:
            return {"type": kinds[annotation]}
        if annotation.__name__ in _CUSTOM:
            return _CUSTOM[annotation.__name__]
        return self.request(annotation)


def _name(cls: Any) -> str:
    """Types of different APIs share names, so the module's is part of it."""
    module = cls.__module__.rsplit(".", 1)[-1].removesuffix("_types")
    return f"{module}.{cls.__name__}"

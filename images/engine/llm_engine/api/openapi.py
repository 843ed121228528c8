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
from llm_engine.api.endpoint import SSE, Endpoint
from llm_engine.api.errors import Dialect
from llm_engine.api.gate import PUBLIC_PATHS
from llm_engine.api.gojson import wire_name

_WRONG = {
    400: "The request makes no sense; the text says what of it.",
    401: "No key, or none that is known, where keys are asked for.",
    403: "Not offered, or not to this web page or under this host name.",
    404: "There is no such model, or no such file.",
    413: "The body is larger than the server takes.",
    500: "Something went wrong here; the server's log has the details.",
    503: "Too many wait already, or the server is about to end; Retry-After says when to try again.",
    507: "The disk is full.",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
# Keys are asked for where the operator set a file of them.
_SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"header": []}]
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
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
            "securitySchemes": _KEYS,
        },
    }


def _operation(endpoint: Endpoint, method: str, components: _Components) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{endpoint.path}").strip("_"),
        "summary": endpoint.summary,
        "responses": _responses(endpoint, method, components),
    }
    if endpoint.path not in PUBLIC_PATHS:
        operation["security"] = _SECURITY
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
        content[endpoint.stream] = {"schema": _EVENT if endpoint.stream == SSE else {"type": "string"}}
    wrong = {"content": {"application/json": {"schema": components.reply(_ERRORS[endpoint.dialect])}}}
    responses: dict[str, Any] = {}
    for status in _errors(endpoint):
        # Who is not let in by its page or host gets no body, nor does anybody who asks for none.
        empty = method == "HEAD" or (status == 403 and endpoint.reply is not None)
        responses[str(status)] = {"description": _WRONG[status], **({} if empty else wrong)}
    good = {"description": "OK", **({"content": content} if content else {})}
    return responses | {str(status): good for status in endpoint.replies}


def _errors(endpoint: Endpoint) -> list[int]:
    """What may go wrong on a route, by who may ask, what it reads and whether it needs a model."""
    found = {403, 500, *endpoint.errors}
    if endpoint.path not in PUBLIC_PATHS:
        found.add(401)
    if endpoint.request is not None or endpoint.body is not None:
        found |= {400, 404, 413}
    if "{" in endpoint.path:
        found |= {400, 404}
    if "model" in needs(endpoint.request):
        found.add(503)
    return sorted(found)


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
        """A request type: a field is optional and may be null, as Go's decoder has it, unless nothing can be
        done without it."""
        name = _name(cls)
        if name not in self.schemas:
            self.schemas[name] = {}
            hints = typing.get_type_hints(cls)
            self.schemas[name] = {
                "type": "object",
                "properties": {
                    wire_name(item): self._item(item, hints[item.name], needed=item.name in needs(cls))
                    for item in dataclasses.fields(cls)
                },
                **({"required": list(needs(cls))} if needs(cls) else {}),
            }
        return {"$ref": _REF.format(model=name)}

    def _item(self, item: dataclasses.Field[Any], annotation: Any, *, needed: bool) -> dict[str, Any]:
        known: dict[str, Any] | None = item.metadata.get("schema")
        if not needed:
            return self._field(annotation) if known is None else {"anyOf": [known, {"type": "null"}]}
        schema = known or self._plain(annotation)
        return {**schema, "minLength": 1} if schema.get("type") == "string" else schema

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


def needs(cls: Any) -> tuple[str, ...]:
    """The fields of a request without which it makes no sense."""
    found: tuple[str, ...] = getattr(cls, "__needs__", ())
    return found


def _name(cls: Any) -> str:
    """Types of different APIs share names, so the module's is part of it."""
    module = cls.__module__.rsplit(".", 1)[-1].removesuffix("_types")
    return f"{module}.{cls.__name__}"

"""Turns pydantic's findings into lines a person can act on: file, line, key path, value, suggestion."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from stackctl.config.yaml_source import KeyPath, Origin

# What people mean by the patterns that the model has for names.
_PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,39}$": "lower-case letters, digits and '-', 40 at most",
    r"^[a-z][a-z0-9_]{0,62}$": "lower-case letters, digits and '_', with a letter first",
    r"^/": "a path that begins with '/'",
}


def explain(error: ValidationError, model: Any, origins: Mapping[KeyPath, Origin]) -> list[str]:
    """One line for each finding, in the order of the file."""
    found = [(_origin(tuple(item["loc"]), origins), item) for item in error.errors()]
    found.sort(key=lambda pair: (pair[0].file, pair[0].line) if pair[0] else ("", 0))
    return [_line(origin, dict(item), model) for origin, item in found]


def _line(origin: Origin | None, item: dict[str, Any], model: Any) -> str:
    location: KeyPath = tuple(item["loc"])
    where = f"{origin.file}:{origin.line}: " if origin else ""
    path = ".".join(str(part) for part in location) or "stack"
    return f"{where}{path}: {_text(item, location, model)}"


def _text(item: dict[str, Any], location: KeyPath, model: Any) -> str:
    import difflib

    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        if close:
            return f"unknown key (did you mean '{close[0]}'?)"
        return "unknown key" + (f" (known here: {', '.join(sorted(known))})" if known else "")
    if kind == "missing":
        return "is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        choices = str(item["ctx"]["expected"])
        close = difflib.get_close_matches(
            str(value), choices.replace("'", "").replace(" or ", ", ").split(", "), n=1
        )
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        return f"{value!r} is not one of {choices}{hint}"
    if kind == "value_error":
        return message
    if kind == "string_pattern_mismatch" and (meant := _PATTERNS.get(item["ctx"]["pattern"])):
        return f"must be {meant}, not {value!r}"
    shown = f"{value!r}" if not isinstance(value, dict | list) or len(repr(value)) < 40 else "what is there"
    return f"{message[0].lower()}{message[1:]}, not {shown}"


def _origin(location: KeyPath, origins: Mapping[KeyPath, Origin]) -> Origin | None:
    """The nearest written key: unions add steps to a location that no file has."""
    for length in range(len(location), -1, -1):
        if found := origins.get(location[:length]):
            return found
    return None


def _keys_at(model: Any, location: KeyPath) -> list[str]:
    """The keys that the model would take at `location`."""
    annotations: list[Any] = [model]
    for part in location:
        annotations = [step for one in annotations for step in _step(one, part)] or annotations
    keys: list[str] = []
    for one in annotations:
        if isinstance(one, type) and issubclass(one, BaseModel):
            keys += [field.alias or name for name, field in one.model_fields.items()]
    return keys


def _step(annotation: Any, part: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                return _flatten(field.annotation)
        return []
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    return _flatten(arguments[-1]) if arguments else []


def _flatten(annotation: Any) -> list[Any]:
    """The classes a value may have: through Annotated, unions and containers of one step."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (dict, tuple, list):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _flatten(argument)]

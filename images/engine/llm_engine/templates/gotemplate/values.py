"""The Go values that templates see, and what Go says about them: their type's name, their truth, their kind.

Python's own values stand for most of them: str, bool, int, float, list (slice), dict (map) and None (nil).
A struct is a `GoStruct`. A map or slice whose Go type prints itself as JSON is a `JsonMap` or `JsonList`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class GoStruct:
    """A struct or a pointer to one: fields in the order of declaration, which is the order of its JSON."""

    type_name: str
    fields: Mapping[str, Any]
    json_names: Mapping[str, str] = field(default_factory=dict)  # field -> JSON name; absent = not in JSON
    omit_empty: frozenset[str] = frozenset()
    prints_json: bool = False
    methods: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    extra_json: Mapping[str, Any] = field(default_factory=dict)


class JsonMap(dict[str, Any]):
    """A map type with a String method that gives JSON; JSON keys are sorted as Go sorts the keys of a map."""

    type_name = "map[string]interface {}"


class OrderedJsonMap(JsonMap):
    """A map type that keeps the client's order of keys in JSON."""


class JsonList(list[Any]):
    """A slice type with a String method that gives JSON."""

    type_name = "[]interface {}"


def type_name(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "int"
        case float():
            return "float64"
        case GoStruct():
            return value.type_name
        case JsonMap() | JsonList():
            return value.type_name
        case dict():
            return "map[string]interface {}"
        case list() | tuple():
            return "[]interface {}"
    return type(value).__name__


def truth(value: Any) -> bool:
    """Go's: zero numbers, empty strings, slices and maps, and nil are false; a struct is true."""
    if isinstance(value, GoStruct):
        return True
    return bool(value)


def kind(value: Any) -> str:
    """The basic kind for comparisons; "" when the value has none."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "string"
    return ""

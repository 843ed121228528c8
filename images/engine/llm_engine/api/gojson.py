"""Reads request bodies the way Go's encoding/json does, because clients of Ollama depend on its leniency.

Keys match without regard to case, unknown keys are ignored, a later duplicate wins, `null` leaves the
default. What is refused is refused with Go's own sentence: people search for those sentences. The shape is a
frozen dataclass; its annotations are compiled once into converters.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar, cast, get_args, get_origin

from llm_engine.api.goparse import GoDecodeError, Infinite, Overflowing, parse, refuse_infinite

T = TypeVar("T")


class CustomJson(Protocol):
    """A type that reads its own JSON value, as Go's UnmarshalJSON does."""

    @classmethod
    def from_json(cls, value: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class GoType:
    """Go's name of a type where the annotation cannot say it: `Annotated[float, GoType("float32")]`."""

    name: str


Float32 = Annotated[float, GoType("float32")]


Convert = Callable[[Any, str, str], Any]


def decode(raw: bytes, cls: type[T]) -> T:
    """A body as the request dataclass `cls`."""
    value = parse(raw)
    made = convert(value, cls)
    if isinstance(value, Overflowing):
        refuse_infinite(made)  # in what was read: a field that nobody knows may hold any number
    return made


def convert(value: Any, cls: type[T]) -> T:
    """An already parsed value as the request dataclass `cls`."""
    if value is None:
        return cls()
    if not isinstance(value, dict):
        raise GoDecodeError(f"json: cannot unmarshal {_kind(value)} into Go value of type {go_name(cls)}")
    return cast(T, _struct(cast(Any, cls))(value, cls.__name__, ""))


def go_name(annotation: Any) -> str:
    """Go's name for an annotation, as its errors print it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, GoType):
                return extra.name
        return go_name(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return go_name(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if origin is list:
        return "[]" + go_name(get_args(annotation)[0])
    if origin is dict:
        return "map[string]" + go_name(get_args(annotation)[1])
    if annotation is Any:
        return "interface {}"
    plain = {str: "string", bool: "bool", int: "int", float: "float64"}
    if annotation in plain:
        return plain[annotation]
    return f"{getattr(annotation, '__go_package__', 'api')}.{annotation.__name__}"


def wire_name(item: dataclasses.Field[Any]) -> str:
    return cast(str, item.metadata.get("json", item.name))


def _kind(value: Any, *, literal: bool = False) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return f"number {_number(value)}" if literal else "number"


def _number(value: int | float) -> str:
    return value.text if isinstance(value, Infinite) else str(value)


def _mismatch(value: Any, annotation: Any, root: str, path: str, *, literal: bool = False) -> GoDecodeError:
    where = f"Go struct field {root}.{path}" if path else "Go value"
    kind = _kind(value, literal=literal)
    return GoDecodeError(f"json: cannot unmarshal {kind} into {where} of type {go_name(annotation)}")


@functools.cache
def _struct(cls: Any) -> Convert:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {
        wire_name(item).lower(): (item.name, wire_name(item), _converter(hints[item.name]))
        for item in dataclasses.fields(cls)
    }

    def read(value: Any, root: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, cls, root, path)
        found: dict[str, Any] = {}
        for key, item in value.items():
            known = fields.get(key) or fields.get(key.lower())
            if known is None or item is None:
                continue
            attribute, name, convert_item = known
            found[attribute] = convert_item(item, root, f"{path}.{name}" if path else name)
        return cls(**found)

    return read


def _converter(annotation: Any) -> Convert:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _scalar(get_args(annotation)[0], annotation)
    if origin in (typing.Union, types.UnionType):
        return _converter(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if origin is list:
        return _list(annotation)
    if origin is dict:
        return _map(annotation)
    if annotation is Any:
        return lambda value, root, path: value
    if hasattr(annotation, "from_json"):
        return lambda value, root, path: annotation.from_json(value)
    if dataclasses.is_dataclass(annotation):
        return lambda value, root, path: _struct(cast(Any, annotation))(value, root, path)
    return _scalar(annotation, annotation)


def _list(annotation: Any) -> Convert:
    inner = _converter(get_args(annotation)[0])
    empty = get_args(annotation)[0]

    def read(value: Any, root: str, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(value, annotation, root, path)
        return [_zero(empty) if item is None else inner(item, root, path) for item in value]

    return read


def _zero(annotation: Any) -> Any:
    zeros: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False}
    if annotation in zeros:
        return zeros[annotation]
    if get_origin(annotation) in (dict, list):
        return cast(Any, get_origin(annotation))()
    return cast(Any, annotation)() if dataclasses.is_dataclass(annotation) else None


def _map(annotation: Any) -> Convert:
    inner = _converter(get_args(annotation)[1])

    def read(value: Any, root: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, annotation, root, path)
        return {key: inner(item, root, path) for key, item in value.items()}

    return read


def _scalar(kind: type[Any], annotation: Any) -> Convert:
    def read(value: Any, root: str, path: str) -> Any:
        if kind is int:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _mismatch(value, annotation, root, path)
            if isinstance(value, float) or not -(2**63) <= value < 2**63:
                raise _mismatch(value, annotation, root, path, literal=True)
        elif kind is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _mismatch(value, annotation, root, path)
            if not math.isfinite(value):
                raise _mismatch(value, annotation, root, path, literal=True)
            return float(value)
        elif not isinstance(value, kind):
            raise _mismatch(value, annotation, root, path)
        return value

    return read

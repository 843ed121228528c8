"""Reads request bodies the way Go's encoding/json does, because clients of Ollama depend on its leniency.

Keys match without regard to case, unknown keys are ignored, a later duplicate wins, bytes after the first
value are ignored, `null` leaves the default. What is refused is refused with Go's own sentence: people search
for those sentences. The shape is a frozen dataclass; its annotations are compiled once into converters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Protocol, TypeVar, cast, get_args, get_origin

import orjson

from llm_engine.api import longtexts
from llm_engine.api.goscan import GoSyntaxError, scan

MAX_DEPTH = 500
T = TypeVar("T")


class GoDecodeError(ValueError):
    """The body is not what the Go struct of the same name would accept; the text is Go's."""


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


def parse(raw: bytes) -> Any:
    """The first JSON value of a body; GoDecodeError says what is wrong with it."""
    if len(raw) <= longtexts.LARGE:
        return _parse(raw)
    try:
        return longtexts.loads(raw, _parse)
    except GoSyntaxError as error:
        raise GoDecodeError(str(error)) from None


def _parse(raw: bytes) -> Any:
    try:
        with _uncollected():
            value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _parse_leniently(raw)
    if isinstance(value, (dict, list)) and _deeper_than(value, MAX_DEPTH):
        raise GoDecodeError("exceeded max depth")
    return value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look at all that is being made again and again, while no
    other thread can run."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse_leniently(raw: bytes) -> Any:
    try:
        end = scan(raw, max_depth=MAX_DEPTH)
    except GoSyntaxError as error:
        raise GoDecodeError(str(error)) from None
    text = raw[:end].decode("utf-8", "replace")
    value = json.loads(text, strict=False)
    return _without_surrogates(value)


def _without_surrogates(value: Any) -> Any:
    """Go replaces half a surrogate pair by U+FFFD; left in, it could not be encoded later."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def decode(raw: bytes, cls: type[T]) -> T:
    """A body as the request dataclass `cls`."""
    return convert(parse(raw), cls)


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
    return str(value)


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

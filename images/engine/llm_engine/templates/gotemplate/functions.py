"""The functions that a template may call: Go's builtins and the four that chat templates add.

`and` and `or` are not here: they do not evaluate all their arguments, so the interpreter runs them itself.
"""

from __future__ import annotations

import html as html_entities
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote_plus

from llm_engine.templates.gotemplate import comparing
from llm_engine.templates.gotemplate.printf import printf
from llm_engine.templates.gotemplate.printing import go_json, show
from llm_engine.templates.gotemplate.values import GoStruct, truth, type_name


class CallError(Exception):
    """A function's own complaint; the interpreter says where it was called."""


@dataclass(frozen=True, slots=True)
class Function:
    call: Callable[[Sequence[Any]], Any]
    at_least: int
    at_most: int | None
    # The types that Go's signature demands of the leading arguments.
    wants: tuple[str, ...] = ()


def sprint(args: Sequence[Any]) -> str:
    """`fmt.Sprint`: a space between two operands when neither is a string."""
    out: list[str] = []
    for at, arg in enumerate(args):
        if at and not isinstance(arg, str) and not isinstance(args[at - 1], str):
            out.append(" ")
        out.append(show(arg))
    return "".join(out)


def _escaped(args: Sequence[Any]) -> str:
    return args[0] if len(args) == 1 and isinstance(args[0], str) else sprint(args)


def _html(args: Sequence[Any]) -> str:
    text = html_entities.escape(_escaped(args), quote=False)
    return text.replace('"', "&#34;").replace("'", "&#39;").replace("\x00", "\ufffd")


_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _js(args: Sequence[Any]) -> str:
    out = []
    for char in _escaped(args):
        if char in _JS:
            out.append(_JS[char])
        elif ord(char) < 0x20 or not char.isprintable():
            out.append(f"\\u{ord(char):04X}")
        else:
            out.append(char)
    return "".join(out)


def _len(args: Sequence[Any]) -> int:
    item = args[0]
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogateescape"))
    if isinstance(item, dict | list | tuple):
        return len(item)
    raise CallError("len of nil pointer" if item is None else f"len of type {type_name(item)}")


def _position(value: Any, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if value is None:
            raise CallError("cannot index slice/array with nil")
        raise CallError(f"cannot index slice/array with type {type_name(value)}")
    if not 0 <= value <= limit:
        raise CallError(f"index out of range: {value}")
    return value


def _index(args: Sequence[Any]) -> Any:
    item = args[0]
    if item is None:
        raise CallError("index of untyped nil")
    for index in args[1:]:
        if isinstance(item, str):
            raw = item.encode("utf-8", "surrogateescape")
            item = raw[_position(index, len(raw) - 1)]
        elif isinstance(item, dict):
            if not isinstance(index, str):
                shown = "nil" if index is None else type_name(index)
                raise CallError(f"value has type {shown}; should be string")
            item = item.get(index)
        elif isinstance(item, list | tuple):
            item = item[_position(index, len(item) - 1)]
        else:
            raise CallError(
                "index of nil pointer" if item is None else f"can't index item of type {type_name(item)}"
            )
    return item


def _slice(args: Sequence[Any]) -> Any:
    item, indexes = args[0], args[1:]
    if item is None:
        raise CallError("slice of untyped nil")
    if len(indexes) > 3:
        raise CallError(f"too many slice indexes: {len(indexes)}")
    if isinstance(item, str):
        if len(indexes) == 3:
            raise CallError("cannot 3-index slice a string")
        raw = item.encode("utf-8", "surrogateescape")
        start, end = _bounds(indexes, len(raw))
        return raw[start:end].decode("utf-8", "surrogateescape")
    if isinstance(item, list | tuple):
        start, end = _bounds(indexes, len(item))
        return type(item)(item[start:end])
    raise CallError(f"can't slice item of type {type_name(item)}")


def _bounds(indexes: Sequence[Any], length: int) -> tuple[int, int]:
    found = [_position(index, length) for index in indexes]
    start, end = (*found[:2], *(0, length)[len(found[:2]) :])
    if start > end:
        raise CallError(f"invalid slice index: {start} > {end}")
    return start, end


def _call(args: Sequence[Any]) -> Any:
    function = args[0]
    if function is None:
        raise CallError("call of nil")
    raise CallError(f"non-function {show(function)} of type {type_name(function)}")


def typescript_type(value: Any) -> str:
    """The TypeScript spelling of a tool property's JSON type."""
    if not isinstance(value, GoStruct) or "Type" not in value.fields:
        return "any"
    fields = value.fields
    if fields.get("AnyOf"):
        return " | ".join(typescript_type(v) for v in fields["AnyOf"])
    names = fields["Type"] if isinstance(fields["Type"], list) else [fields["Type"]]
    if not names or names == [""]:
        return "any"
    return " | ".join(_typescript(name, fields.get("Items")) for name in names)


def _typescript(name: str, items: Any) -> str:
    if name == "array":
        inner = "any"
        if isinstance(items, dict) and isinstance(items.get("type"), str):
            inner = _typescript(items["type"], items.get("items"))
        return f"{inner}[]"
    known = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
    return known.get(name) or {"object": "Record<string, any>", "null": "null"}.get(name, "any")


def table(today: date) -> Mapping[str, Function]:
    """All functions for a rendering that happens on `today`."""
    iso, before = today.isoformat(), (today - timedelta(days=1)).isoformat()
    return {
        "and": Function(lambda args: None, 1, None),
        "or": Function(lambda args: None, 1, None),
        "not": Function(lambda args: not truth(args[0]), 1, 1),
        "eq": Function(comparing.eq, 1, None),
        "ne": Function(comparing.ne, 2, 2),
        "lt": Function(comparing.lt, 2, 2),
        "le": Function(comparing.le, 2, 2),
        "gt": Function(comparing.gt, 2, 2),
        "ge": Function(comparing.ge, 2, 2),
        "len": Function(_len, 1, 1),
        "index": Function(_index, 1, None),
        "slice": Function(_slice, 1, None),
        "call": Function(_call, 1, None),
        "print": Function(sprint, 0, None),
        "println": Function(lambda args: " ".join(map(show, args)) + "\n", 0, None),
        "printf": Function(lambda args: printf(args[0], args[1:]), 1, None, ("string",)),
        "html": Function(_html, 0, None),
        "js": Function(_js, 0, None),
        "urlquery": Function(lambda args: quote_plus(_escaped(args), safe="-_.~"), 0, None),
        "json": Function(lambda args: go_json(args[0]), 1, 1),
        "currentDate": Function(lambda args: iso, 0, None, ("string",)),
        "yesterdayDate": Function(lambda args: before, 0, None, ("string",)),
        "toTypeScriptType": Function(lambda args: typescript_type(args[0]), 1, 1),
    }


NAMES = frozenset(table(date(2000, 1, 2)))

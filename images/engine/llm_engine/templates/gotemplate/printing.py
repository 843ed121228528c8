"""How Go writes values: `%v` of package fmt and compact JSON of package encoding/json."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from llm_engine.templates.gotemplate.values import GoStruct, JsonList, JsonMap, OrderedJsonMap, truth

_HTML = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def show(value: Any, depth: int = 0) -> str:
    """`fmt.Sprint` of one value."""
    match value:
        case None:
            return "<nil>"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return go_float(value)
        case GoStruct():
            if value.prints_json:
                return go_json(value)
            inner = " ".join(show(v, depth + 1) for v in value.fields.values())
            return ("&" if depth == 0 and value.type_name.startswith("*") else "") + "{" + inner + "}"
        case JsonMap() | JsonList():
            return go_json(value)
        case dict():
            items = (f"{show(k, depth + 1)}:{show(v, depth + 1)}" for k, v in sorted_items(value))
            return "map[" + " ".join(items) + "]"
        case list() | tuple():
            return "[" + " ".join(show(v, depth + 1) for v in value) + "]"
    return str(value)


def sorted_items(value: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """The items of a map in the order in which Go's fmt and template packages walk them."""
    return sorted(value.items(), key=lambda item: str(item[0]))


def go_float(value: float) -> str:
    """`%v` of a float64: the shortest digits, an exponent below 1e-4 and from 1e6 on."""
    return _special(value) or _shortest(value, 6, -4)


def json_float(value: float) -> str:
    text = _shortest(value, 21, -6)
    # encoding/json writes e-9, not e-09.
    if len(text) > 4 and text[-4:-1] == "e-0":
        text = text[:-2] + text[-1]
    return text


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return ""


def _shortest(value: float, above: int, below: int) -> str:
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    point = len(text) + exponent - 1  # the exponent of the first digit
    minus = "-" if sign else ""
    if value == 0:
        return minus + "0"
    if point < below or point >= above:
        mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
        return f"{minus}{mantissa}e{'-' if point < 0 else '+'}{abs(point):02d}"
    if point < 0:
        return f"{minus}0.{'0' * (-point - 1)}{text}"
    whole, rest = text[: point + 1].ljust(point + 1, "0"), text[point + 1 :]
    return minus + whole + ("." + rest if rest else "")


def go_json(value: Any) -> str:
    """`json.Marshal`: compact, `<>&` escaped, keys of maps sorted, fields of structs in declared order."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _json_string(value)
        case int():
            return str(value)
        case float():
            return json_float(value) if math.isfinite(value) else "null"
        case GoStruct():
            return "{" + ",".join(_members(value)) + "}"
        case OrderedJsonMap():
            return "{" + ",".join(f"{_json_string(str(k))}:{go_json(v)}" for k, v in value.items()) + "}"
        case dict():
            pairs = sorted_items(value)
            return "{" + ",".join(f"{_json_string(str(k))}:{go_json(v)}" for k, v in pairs) + "}"
        case list() | tuple():
            return "[" + ",".join(go_json(v) for v in value) + "]"
    return _json_string(str(value))


def _members(value: GoStruct) -> list[str]:
    members = []
    for name, json_name in value.json_names.items():
        item = value.fields[name]
        if name in value.omit_empty and not truth(item):
            continue
        members.append(f"{_json_string(json_name)}:{go_json(item)}")
    members.extend(f"{_json_string(k)}:{go_json(v)}" for k, v in value.extra_json.items())
    return members


def _json_string(text: str) -> str:
    if text.isascii() and text.isprintable() and not any(c in text for c in '"\\<>&'):
        return f'"{text}"'
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.translate(_HTML)

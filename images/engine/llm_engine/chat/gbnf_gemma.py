"""Grammars of arguments in Gemma's own notation: `{city:<|"|>Oslo<|"|>,days:3,tags:[<|"|>a<|"|>]}`.

Keys keep to the tool's properties and plain values to their types, in any order, as the model was trained;
what is inside lists and objects keeps to the notation alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_engine.chat.gbnf import literal, renamed, up_to
from llm_engine.runner.json_schema import schema_to_gbnf

_SAME_AS_JSON = {"integer", "number", "boolean", "null"}
_OWN = {"string": "text", "array": "list", "object": "object"}


def arguments(schema: Mapping[str, Any], quote: str) -> str:
    """Rules for the arguments with their braces; they start at `root`. Texts stand between two `quote`s."""
    properties = schema.get("properties")
    rules = _values(quote)
    if not isinstance(properties, Mapping) or not properties:
        return f"root ::= object\n{rules}"
    pairs = []
    for number, (key, value) in enumerate(properties.items()):
        pairs.append(f"{literal(f'{key}:')} blank property-{number}")
        rules += _value(value, quote, f"property-{number}")
    some = "pair (comma pair)*"
    inside = some if schema.get("required") else f"({some})?"
    return f'root ::= "{{" blank {inside} blank "}}"\npair ::= {" | ".join(pairs)}\n{rules}'


def _value(schema: Any, quote: str, name: str) -> str:
    """Rules for one property; they start at `name`."""
    if not isinstance(schema, Mapping):
        return f"{name} ::= value\n"
    kind, words = schema.get("type"), schema.get("enum")
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return f"{name} ::= {' | '.join(literal(f'{quote}{word}{quote}') for word in words)}\n"
    if isinstance(kind, str) and kind in _SAME_AS_JSON:
        return f"{name} ::= {name}-root\n" + renamed(schema_to_gbnf(schema), f"{name}-")
    return f"{name} ::= {_OWN.get(kind, 'value') if isinstance(kind, str) else 'value'}\n"


def _values(quote: str) -> str:
    """Any value."""
    return (
        "blank ::= [ \\n]{0,4}\n"
        'comma ::= blank "," blank\n'
        f"text ::= {literal(quote)} inside\n{up_to(quote, 'inside')}"
        'number ::= "-"? [0-9]{1,18} ("." [0-9]{1,18})? ([eE] [-+]? [0-9]{1,2})?\n'
        'value ::= text | number | "true" | "false" | "null" | list | object\n'
        'list ::= "[" blank (value (comma value)*)? blank "]"\n'
        'object ::= "{" blank (member (comma member)*)? blank "}"\n'
        'member ::= [A-Za-z_] [A-Za-z0-9_.-]{0,63} ":" blank value\n'
    )

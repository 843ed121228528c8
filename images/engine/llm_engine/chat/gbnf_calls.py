"""Grammars of tool calls, put together from a family's form and the tools' schemas."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_engine.chat.gbnf import literal, renamed, up_to
from llm_engine.chat.messages import Tool
from llm_engine.runner.json_schema import schema_to_gbnf

BLANK = "call-blank"
_RULES = (
    f"{BLANK} ::= [ \\t\\r\\n]{{0,20}}\ncall-number ::= [0-9]{{1,3}}\ncall-id ::= [a-zA-Z0-9_-]{{1,64}}\n"
)
_PIECES = re.compile(r"(\{name\}|\{number\}|\{id\}|\s+)")
_PLACES = {"{number}": "call-number", "{id}": "call-id"}
Around = tuple[str, str]


class Calls:
    """The rules for the arguments of each tool, and expressions for calls that use them."""

    def __init__(self, tools: Sequence[Tool], *, tags: bool = False, lenient: bool = False) -> None:
        """`lenient`: a schema that makes no sense holds its tool to any object, and is no error."""
        self._tools = tools
        self.rules = _RULES
        for number, tool in enumerate(tools):
            try:
                self.rules += renamed(_arguments(tool, tags=tags), _prefix(number))
            except ValueError:
                if not lenient:
                    raise
                self.rules += renamed(_arguments(Tool(tool.name), tags=tags), _prefix(number))

    def any_of(self, ways: Sequence[Around], *, loose: bool) -> str:
        """A call of any tool, written in any of the `ways`: what stands before and behind its arguments."""
        choices = [
            f"{spelled(before, tool.name, loose=loose)} {_prefix(number)}root {spelled(after, loose=loose)}"
            for number, tool in enumerate(self._tools)
            for before, after in ways
        ]
        return " | ".join(choice.strip() for choice in choices)


def spelled(text: str, name: str = "", *, loose: bool) -> str:
    """A form's text as an expression; `loose`: its blanks stand for any."""
    parts, plain = [], ""
    for piece in _PIECES.split(text):
        if piece == "{name}" or (not loose and piece.isspace()):
            plain += name if piece == "{name}" else piece
            continue
        place = BLANK if piece.isspace() else _PLACES.get(piece)
        if place is None:
            plain += piece
            continue
        parts += [literal(plain)] * bool(plain) + [place]
        plain = ""
    return " ".join(parts + [literal(plain)] * bool(plain))


def _prefix(number: int) -> str:
    return f"tool-{number}-"


def _arguments(tool: Tool, *, tags: bool) -> str:
    """The grammar of a tool's arguments; it starts at `root`."""
    schema = dict(tool.parameters or {})
    if not (schema.get("type") or "$ref" in schema):
        schema = {"type": "object", **schema}
    return _tagged(schema) if tags else schema_to_gbnf(schema)


def _tagged(schema: Mapping[str, Any]) -> str:
    """`<parameter=key>value</parameter>` for each property, in their order; texts stand there as they are."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return f'root ::= (blank "<parameter=" [^>\\n]+ ">" value)*\n{_TAG_BLANK}{up_to(_CLOSE, "value")}'
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    rules, parts = _TAG_BLANK, []
    for number, (key, value) in enumerate(properties.items()):
        rules += _value(value, shared, f"p{number}-")
        part = f"blank {literal(f'<parameter={key}>')} p{number}-value"
        parts.append(part if key in schema.get("required", ()) else f"({part})?")
    return f"root ::= {' '.join(parts)}\n{rules}"


_CLOSE = "</parameter>"
_TAG_BLANK = "blank ::= [ \\t\\r\\n]{0,20}\n"


def _value(schema: Any, shared: Mapping[str, Any], prefix: str) -> str:
    """Rules for a value and its closing tag; they start at `value`."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        words = schema.get("enum")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return up_to(_CLOSE, f"{prefix}value")
        inside, more = f"({' | '.join(map(literal, words))})", ""
    else:
        whole = {**schema, **shared} if isinstance(schema, Mapping) else schema
        inside, more = f"{prefix}root", renamed(schema_to_gbnf(whole), prefix)
    return f'{prefix}value ::= "\\n"? {inside} "\\n"? {literal(_CLOSE)}\n{more}'

"""Grammars of tool calls, put together from a family's form and the tools' schemas."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from llm_engine.chat import gbnf_gemma
from llm_engine.chat.gbnf import literal, renamed, up_to
from llm_engine.chat.messages import Tool
from llm_engine.runner import schema_words
from llm_engine.runner.json_schema import LARGEST, schema_to_gbnf

BLANK = "call-blank"
_RULES = (
    f"{BLANK} ::= [ \\t\\r\\n]{{0,20}}\ncall-number ::= [0-9]{{1,3}}\ncall-id ::= [a-zA-Z0-9_-]{{1,64}}\n"
)
_PIECES = re.compile(r"(\{name\}|\{number\}|\{id\}|\s+)")
_PLACES = {"{number}": "call-number", "{id}": "call-id"}
Around = tuple[str, str]


class Calls:
    """The rules for the arguments of each tool, and expressions for calls that use them."""

    def __init__(
        self, tools: Sequence[Tool], *, tags: bool = False, quote: str = "", lenient: bool = False
    ) -> None:
        """`quote`: arguments are in Gemma's notation. `lenient`: a schema that makes no sense holds its tool
        to any object, and is no error. ValueError where all of them together are more than a grammar may be.
        """
        self._tools = tools
        self.rules = _RULES
        for number, tool in enumerate(tools):
            try:
                self.rules += _rules(json.dumps(tool.parameters or {}), number, tags, quote)
            except ValueError:
                if not lenient:
                    raise
                self.rules += _rules("{}", number, tags, quote)
            if len(self.rules) > LARGEST:
                raise ValueError(f"the tools need a grammar of more than {LARGEST} characters")

    def any_of(self, ways: Sequence[Around], *, loose: bool) -> str:
        """A call of any tool, written in any of the `ways`: what stands before and behind its arguments.

        What all calls begin with is said once, and so is what several names begin with: llama.cpp compares
        the whole vocabulary with each choice that is still open, which took seconds with hundreds of tools.
        """
        return " | ".join(self._way(before, after, loose) for before, after in ways)

    def _way(self, before: str, after: str, loose: bool) -> str:
        lead, _, rest = before.partition("{name}")
        behind = spelled(rest, loose=loose)
        quoted = lead.endswith('"')  # a text of JSON, as which the parser reads it
        names = [
            (_in_json(tool.name) if quoted else tool.name, f"{behind} {_prefix(number)}root".strip())
            for number, tool in enumerate(self._tools)
        ]
        parts = (spelled(lead, loose=loose), f"({_told_apart(names)})", spelled(after, loose=loose))
        return " ".join(part for part in parts if part)


def _in_json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _told_apart(names: Sequence[tuple[str, str]]) -> str:
    """Any of the names, each with what follows it, as a tree of their letters."""
    choices = []
    for begins, group in groupby(sorted(names), key=lambda item: item[0][:1]):
        items = list(group)
        if not begins:
            choices += [then for _, then in items]
            continue
        shared = _beginning(items[0][0], items[-1][0])  # they are sorted
        inner = _told_apart([(name[len(shared) :], then) for name, then in items])
        choices.append(f"{literal(shared)} {inner if len(items) == 1 else f'({inner})'}")
    return " | ".join(choices)


def _beginning(one: str, other: str) -> str:
    """What both begin with."""
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if same is None else same]


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


@functools.lru_cache(maxsize=512)
def _rules(parameters: str, number: int, tags: bool, quote: str) -> str:
    """Kept: an agent sends the same tools with each of its requests."""
    schema = json.loads(parameters)
    found = gbnf_gemma.arguments(schema, quote) if quote else _arguments(schema, tags=tags)
    return renamed(found, _prefix(number))


def _arguments(schema: dict[str, Any], *, tags: bool) -> str:
    """The grammar of a tool's arguments; it starts at `root`."""
    if not (schema.get("type") or "$ref" in schema):
        schema = {"type": "object", **schema}
    return _tagged(schema) if tags else schema_to_gbnf(schema)


def _tagged(schema: Mapping[str, Any]) -> str:
    """`<parameter=key>value</parameter>` for each property, in their order; texts stand there as they are."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return f'root ::= (blank "<parameter=" [^>\\n]+ ">" value)*\n{_TAG_BLANK}{up_to(_CLOSE, "value")}'
    required = schema_words.required(schema, "#")
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    rules, parts = _TAG_BLANK, []
    for number, (key, value) in enumerate(properties.items()):
        rules += _value(value, shared, f"p{number}-")
        part = f"blank {literal(f'<parameter={key}>')} p{number}-value"
        parts.append(part if key in required else f"({part})?")
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

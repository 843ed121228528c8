"""When the answer must have a form: a grammar, JSON, a schema, or a tool call.

A forced tool call is one JSON object `{"name": ..., "arguments": ...}` under a grammar made from the
tools' own schemas, so the arguments are valid whatever the model does. A model that thinks first does so
freely: the grammar sleeps until its thinking ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.api.turn import Turn
from llm_engine.chat.messages import Tool
from llm_engine.runner.messages import Grammar


@dataclass(frozen=True)
class Forced:
    grammar: Grammar | None = None
    tool_call: bool = False
    """The text is a forced call, to be read as such."""


def grammar_for(turn: Turn, gbnf: str | None) -> Forced:
    """The strongest wish wins: a required call, then a format, then a grammar from the options."""
    if turn.tool_choice.mode == "required":
        schema = call_schema(turn.tools, turn.tool_choice.name)
        return Forced(Grammar(json_schema=schema), tool_call=True)
    if turn.format is not None:
        schema = {} if turn.format == "json" else turn.format
        return Forced(Grammar(json_schema=schema))
    if gbnf is not None:
        return Forced(Grammar(gbnf=gbnf))
    return Forced()


def call_schema(tools: Sequence[Tool], name: str | None) -> dict[str, Any]:
    """What one call to one of these tools looks like."""
    options = [_one(tool) for tool in tools if name is None or tool.name == name]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _one(tool: Tool) -> dict[str, Any]:
    parameters: Mapping[str, Any] = tool.parameters or {}
    arguments = dict(parameters) if parameters.get("type") else {"type": "object", **parameters}
    definitions: dict[str, Any] = {
        key: arguments.pop(key) for key in ("$defs", "definitions") if key in arguments
    }
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **definitions,
    }

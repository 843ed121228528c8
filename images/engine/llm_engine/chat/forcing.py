"""Answers that must have a form: a certain tool call, or text of a grammar.

A call is forced in the words of the model's own family, so that the model says what it was trained to say and
the family's parser reads it. With `room` the grammar is in force from the first token on and allows thinking
where the model may think, so that a model that never thinks, or never stops, is held to the form as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_engine.chat import parsing
from llm_engine.chat.gbnf import literal, renamed, up_to
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.events import StreamParser
from llm_engine.chat.prompt import BuiltPrompt
from llm_engine.runner.json_schema import schema_to_gbnf

START = "forced-start"


@dataclass(frozen=True)
class Forced:
    gbnf: str
    parser: Callable[[], StreamParser]
    root: str = START


def tool_call(
    built: BuiltPrompt, tools: Sequence[Tool], name: str | None = None, *, room: bool = True
) -> Forced:
    """One call to the tool `name`, or to any of the tools. ValueError for a schema that makes no sense."""
    family = built.family
    before, after = family.forced or parsing.GENERIC.forced or ("", "")
    choices, rules = [], []
    for number, tool in enumerate(tool for tool in tools if name is None or tool.name == name):
        prefix = f"tool-{number}-"
        rules.append(renamed(schema_to_gbnf(_arguments(tool)), prefix))
        head = literal(before.replace("{name}", tool.name))
        choices.append(f"{head} {prefix}root" + (f" {literal(after)}" if after else ""))
    rules.append(f"forced-call ::= {' | '.join(choices)}\n")
    return Forced(_start(built, "forced-call", "".join(rules), room), _parser(built))


def constrained(built: BuiltPrompt, gbnf: str, *, room: bool = True) -> Forced:
    """Text of a grammar whose start is `root`."""
    answer = literal("<|channel|>final<|message|>") + " root" if _harmony(built) else "root"
    rules = f"{gbnf.rstrip()}\nforced-answer ::= {answer}\n"
    return Forced(_start(built, "forced-answer", rules, room), built.parser)


def _arguments(tool: Tool) -> dict[str, Any]:
    schema = dict(tool.parameters or {})
    return schema if schema.get("type") or "$ref" in schema else {"type": "object", **schema}


def _parser(built: BuiltPrompt) -> Callable[[], StreamParser]:
    """The family's own where calls have its form, else one that reads a bare call."""
    if built.family.forced is not None:
        return built.parser
    bare = replace(parsing.GENERIC, thinking=built.family.thinking, noise=built.family.noise)
    return lambda: built.parser_of(bare)


def _harmony(built: BuiltPrompt) -> bool:
    return built.family.name == "harmony"


def _start(built: BuiltPrompt, then: str, rules: str, room: bool) -> str:
    """The grammar for thinking, where there may be some, and `then`."""
    opening, closing = built.family.thinking
    if _harmony(built):
        opening, closing = "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"
    if room and built.thinks and built.text.rstrip().endswith(opening):
        start = f"forced-thought forced-blank {then}"
    elif room and built.thinks and built.think is not False:
        start = f"({literal(opening)} forced-thought forced-blank)? {then}"
    else:
        return f"{START} ::= {then}\n{rules}"
    thought = up_to(closing, "forced-thought")
    return f"{START} ::= {start}\n{thought}forced-blank ::= [ \\n]{{0,4}}\n{rules}"

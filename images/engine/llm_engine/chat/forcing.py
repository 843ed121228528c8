"""Answers that must have a form: a certain tool call, or text of a grammar; and calls that keep to their
tool where the model makes one of its own will.

A call is forced in the words of the model's own family, so that the model says what it was trained to say and
the family's parser reads it. With `room` the grammar is in force from the first token on and allows thinking
where the model may think, so that a model that never thinks, or never stops, is held to the form as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llm_engine.chat import parsing
from llm_engine.chat.gbnf import literal, up_to
from llm_engine.chat.gbnf_calls import BLANK, Calls, spelled
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.events import StreamParser
from llm_engine.chat.parsing.forms import BARE
from llm_engine.chat.prompt import BuiltPrompt
from llm_engine.runner.messages import Grammar

START = "forced-start"


@dataclass(frozen=True)
class Forced:
    gbnf: str
    parser: Callable[[], StreamParser]
    root: str = START


def tool_call(
    built: BuiltPrompt,
    tools: Sequence[Tool],
    name: str | None = None,
    *,
    room: bool = True,
    several: bool = False,
) -> Forced:
    """One call to the tool `name`, or to any of the tools, or several. ValueError for a schema that makes no
    sense.
    """
    form = built.family.form or BARE
    calls = Calls([tool for tool in tools if name is None or tool.name == name])
    rules = f"forced-one ::= {calls.any_of([(form.call, form.after)], loose=False)}\n"
    more = form.between is not None and several
    parts = (
        spelled(form.open, loose=False),
        "forced-one",
        f"({spelled(form.between or '', loose=False)} forced-one)*" if more else "",
        spelled(form.close, loose=False),
    )
    rules += f"forced-call ::= {' '.join(part for part in parts if part)}\n{calls.rules}"
    return Forced(_start(built, "forced-call", rules, room), _parser(built))


def willing_call(built: BuiltPrompt, tools: Sequence[Tool], *, several: bool) -> Grammar | None:
    """A grammar that sleeps until the model begins a call, which is then held to one of the tools and its
    schema. None where the family's calls are in no form that is known here, or where there is more to hold
    them to than a grammar may say.
    """
    form = built.family.form
    if form is None or not form.wakes or not tools:
        return None
    try:
        calls = Calls(tools, tags=form.tags, quote=form.quote, lenient=True)
    except ValueError:
        return None
    opening, closing = built.family.thinking
    names, opens = (
        "|".join(map(re.escape, texts)) for texts in ([t.name for t in tools], built.family.opens)
    )
    pattern = form.wakes.replace("{names}", names).replace("{opens}", opens or r"\A")
    more = f"({spelled(form.separator, loose=True)} call)*" if several and form.between is not None else ""
    rules = (
        f"root ::= call {more} {spelled(form.end, loose=True)} {BLANK}\n"
        f"call ::= {calls.any_of(form.free, loose=True)}\n{calls.rules}"
    )
    return Grammar(
        gbnf=rules,
        trigger_patterns=(pattern,),
        thinking=(opening, closing) if built.thinks and not _harmony(built) else (),
        in_thought=built.thinks and built.text.rstrip().endswith(opening),
    )


def constrained(built: BuiltPrompt, gbnf: str, *, room: bool = True) -> Forced:
    """Text of a grammar whose start is `root`."""
    answer = literal("<|channel|>final<|message|>") + " root" if _harmony(built) else "root"
    rules = f"{gbnf.rstrip()}\nforced-answer ::= {answer}\n"
    return Forced(_start(built, "forced-answer", rules, room), built.parser)


def _parser(built: BuiltPrompt) -> Callable[[], StreamParser]:
    """The family's own where calls have its form, else one that reads a bare call."""
    if built.family.form is not None:
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

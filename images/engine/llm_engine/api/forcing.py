"""When the answer must have a form: a grammar, JSON, a schema, or a tool call; a call that the model makes of
its own will keeps to its tool.

The form is a grammar in the words of the model's family, see `llm_engine.chat.forcing`; for when it begins,
see `llm_engine.api.after_thinking`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_engine.api.errors import bad_request
from llm_engine.api.prepare import Prepared
from llm_engine.api.turn import Turn
from llm_engine.chat import forcing
from llm_engine.chat.parsing.events import StreamParser
from llm_engine.runner.json_schema import schema_to_gbnf
from llm_engine.runner.messages import Grammar


@dataclass(frozen=True)
class Forced:
    parser: Callable[[], StreamParser]
    grammar: Grammar | None = None


def grammar_for(turn: Turn, gbnf: str | None, prepared: Prepared) -> Forced:
    """The strongest wish wins: a required call, then a format, then a grammar from the options. Without any,
    a grammar waits for a call.
    """
    built = prepared.built
    room = turn.n > 1 or prepared.marks is None  # else the model has thought before the grammar begins
    try:
        if turn.tool_choice.mode == "required" and built is not None:
            name = turn.tool_choice.name
            several = turn.parallel_tool_calls and name is None
            return _forced(forcing.tool_call(built, turn.tools, name, room=room, several=several))
        if turn.format is not None:
            gbnf = schema_to_gbnf({} if turn.format == "json" else turn.format)
    except ValueError as error:
        raise bad_request(f"invalid schema: {error}") from None
    if gbnf is not None and built is not None:
        return _forced(forcing.constrained(built, gbnf, room=room))
    if gbnf is None and built is not None and turn.tool_choice.mode == "auto":
        held = forcing.willing_call(built, turn.tools, several=turn.parallel_tool_calls)
        return Forced(prepared.parser, held)
    return Forced(prepared.parser, None if gbnf is None else Grammar(gbnf=gbnf))


def _forced(form: forcing.Forced) -> Forced:
    return Forced(form.parser, Grammar(gbnf=form.gbnf, root=form.root))

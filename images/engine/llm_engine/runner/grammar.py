"""GBNF grammars, always on or woken by a trigger, for llama.cpp to hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llm_engine.runner.constraint import Constraint
from llm_engine.runner.json_schema import LARGEST, schema_to_gbnf
from llm_engine.runner.library import lib
from llm_engine.runner.messages import Grammar
from llm_engine.runner.trigger import Trigger
from llm_engine.runner.vocab import Vocab

# llama.cpp reads a group inside a group by calling itself, and a stack that overflows ends the process.
DEEPEST = 1000
_NESTING = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|[()]')


def gbnf_of(grammar: Grammar) -> str:
    """The grammar's text; a schema is translated."""
    if grammar.gbnf is not None:
        return grammar.gbnf
    schema = grammar.json_schema
    if isinstance(schema, str | bytes):
        schema = json.loads(schema)
    return schema_to_gbnf(schema)


def depth(gbnf: str) -> int:
    """How deep its groups are nested."""
    now = deepest = 0
    for found in _NESTING.finditer(gbnf):
        now += {"(": 1, ")": -1}.get(found[0], 0)
        deepest = max(deepest, now)
    return deepest


def constraint_factory(vocab: Vocab, grammar: Grammar) -> Callable[[], Constraint]:
    """Parse once, so that errors are found before anything is queued; each branch gets a copy of its own."""
    text = gbnf_of(grammar)
    if len(text) > LARGEST:
        raise ValueError(f"the grammar has {len(text)} characters; the limit is {LARGEST}")
    if depth(text) > DEEPEST:
        raise ValueError(f"the grammar has groups inside groups {depth(text)} deep; the limit is {DEEPEST}")
    patterns = [_compiled(pattern) for pattern in grammar.trigger_patterns]
    tokens = [int(token) for token in grammar.trigger_tokens]
    vocab.check(tokens)
    parsed = Parsed(vocab, text, grammar.root)
    if not (patterns or tokens):
        return lambda: Constraint(vocab, parsed.copy)
    opening, closing = (tag.encode() for tag in grammar.thinking) if grammar.thinking else (b"", b"")
    thinking = (opening, closing) if opening and closing else None

    def asleep() -> Constraint:
        trigger = Trigger(patterns, tokens, thinking, in_thought=grammar.in_thought)
        return Constraint(vocab, parsed.copy, trigger)

    return asleep


class Parsed:
    """A grammar as llama.cpp holds it, nothing fed yet."""

    def __init__(self, vocab: Vocab, text: str, root: str) -> None:
        self._handle = lib.llama_sampler_init_grammar(vocab.handle, text.encode(), root.encode())
        if not self._handle:
            raise ValueError("the grammar could not be parsed")

    def copy(self) -> Any:
        return lib.llama_sampler_clone(self._handle)

    def __del__(self) -> None:
        if self._handle:
            lib.llama_sampler_free(self._handle)


def _compiled(pattern: str) -> re.Pattern[bytes]:
    try:
        return re.compile(pattern.encode())
    except re.error as error:
        raise ValueError(f"the grammar's trigger {pattern!r} is no regular expression: {error}") from None

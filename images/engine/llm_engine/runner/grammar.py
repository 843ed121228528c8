"""GBNF grammars, always on or woken by a trigger, for llama.cpp to hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llm_engine.runner.constraint import Constraint
from llm_engine.runner.json_schema import schema_to_gbnf
from llm_engine.runner.library import lib
from llm_engine.runner.messages import Grammar
from llm_engine.runner.vocab import Vocab

LARGEST = 1 << 20


def gbnf_of(grammar: Grammar) -> str:
    """The grammar's text; a schema is translated."""
    if grammar.gbnf is not None:
        return grammar.gbnf
    schema = grammar.json_schema
    if isinstance(schema, str | bytes):
        schema = json.loads(schema)
    return schema_to_gbnf(schema)


def constraint_factory(vocab: Vocab, grammar: Grammar) -> Callable[[], Constraint]:
    """Parse once to find errors before anything is queued; then a fresh grammar per branch."""
    text = gbnf_of(grammar)
    if len(text) > LARGEST:
        raise ValueError(f"the grammar has {len(text)} characters; the limit is {LARGEST}")
    patterns = [_compiled(pattern) for pattern in grammar.trigger_patterns]
    tokens = [int(token) for token in grammar.trigger_tokens]
    vocab.check(tokens)
    raw, root = text.encode(), grammar.root.encode()

    def make() -> Any:
        handle = lib.llama_sampler_init_grammar(vocab.handle, raw, root)
        if not handle:
            raise ValueError("the grammar could not be parsed")
        return handle

    lib.llama_sampler_free(make())
    return lambda: Constraint(vocab, make, patterns, tokens)


def _compiled(pattern: str) -> re.Pattern[bytes]:
    try:
        return re.compile(pattern.encode())
    except re.error as error:
        raise ValueError(f"the grammar's trigger {pattern!r} is no regular expression: {error}") from None

"""GBNF grammars, always on or woken by a trigger, as llama.cpp samplers."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

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


def sampler_factory(vocab: Vocab, grammar: Grammar) -> Callable[[], Any]:
    """Parse once to find errors before anything is queued; then a fresh sampler per branch."""
    text = gbnf_of(grammar)
    if len(text) > LARGEST:
        raise ValueError(f"the grammar has {len(text)} characters; the limit is {LARGEST}")

    def make() -> Any:
        handle = _make(vocab, text, grammar)
        if not handle:
            raise ValueError("the grammar could not be parsed")
        return handle

    lib.llama_sampler_free(make())
    return make


def _make(vocab: Vocab, text: str, grammar: Grammar) -> Any:
    raw, root = text.encode(), grammar.root.encode()
    if not grammar.trigger_patterns and not grammar.trigger_tokens:
        return lib.llama_sampler_init_grammar(vocab.handle, raw, root)
    patterns = [pattern.encode() for pattern in grammar.trigger_patterns]
    tokens = [int(token) for token in grammar.trigger_tokens]
    return lib.llama_sampler_init_grammar_lazy_patterns(
        vocab.handle,
        raw,
        root,
        (ctypes.c_char_p * len(patterns))(*patterns),
        len(patterns),
        (ctypes.c_int32 * len(tokens))(*tokens),
        len(tokens),
    )

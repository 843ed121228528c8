"""What a model's templates say that it can do, without loading the model."""

from __future__ import annotations

from functools import lru_cache

from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.gotemplate.inspect import inspect
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.jinja.traits import probe

THINKING_MARKS = ("</think>", "[/THINK]", "<|channel|>", "<|END_THINKING|>", "</seed:think>", "<channel|>")


@lru_cache(maxsize=256)
def capabilities(go: str | None, jinja: str | None) -> frozenset[str]:
    """`tools`, `insert` and `thinking`, by the template that would be used and the one beside it.

    A template that does not parse can nothing.
    """
    found: set[str] = set()
    if go:
        try:
            traits = inspect(Template(go))
        except TemplateError:
            pass
        else:
            found |= {"tools"} if traits.tools else set()
            found |= {"insert"} if traits.suffix else set()
            found |= {"thinking"} if traits.thinking or {"Thinking", "Think"} <= traits.names else set()
            found |= {"thinking"} if "<|channel|>" in go else set()
    if jinja:
        try:
            can = probe(ChatTemplate(jinja))
        except TemplateError:
            return frozenset(found)
        found |= {"tools"} if can.tools or can.tool_calls else set()
        found |= {"thinking"} if can.thinking or any(mark in jinja for mark in THINKING_MARKS) else set()
    return frozenset(found)

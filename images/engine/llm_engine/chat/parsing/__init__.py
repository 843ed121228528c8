"""Turning the text that a model writes into content, thinking and tool calls, while it is being written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.events import Content, Event, StreamParser, Thinking, ToolCall
from llm_engine.chat.parsing.family import FAMILIES, GENERIC, PLAIN, THINK, Family
from llm_engine.chat.parsing.harmony import HarmonyParser
from llm_engine.chat.parsing.tagged import TaggedParser

if TYPE_CHECKING:
    from llm_engine.chat.model import ChatModel

__all__ = [
    "GENERIC", "PLAIN", "Content", "Event", "Family", "StreamParser", "Thinking", "ToolCall", "can_think",
    "family_of", "parser_for",
]  # fmt: skip


def family_of(model: ChatModel) -> Family:
    """The family of a model: by the parser its config names, else by marks in its template."""
    if model.parser == "passthrough":
        return PLAIN
    for family in FAMILIES:
        if model.parser and model.parser in family.parsers:
            return family
    text = model.template_text
    for family in FAMILIES:
        if any(all(mark in text for mark in marks) for marks in family.marks):
            return _with_own_tags(model, family)
    tag = model.go_traits.tool_tag if not model.uses_jinja else "{"
    if tag not in ("{", "["):
        return _with_own_tags(model, replace(GENERIC, opens=(tag,)))
    return _with_own_tags(model, GENERIC)


def _with_own_tags(model: ChatModel, family: Family) -> Family:
    """A Go template may name thinking tags of its own."""
    own = None if model.uses_jinja else model.go_traits.thinking
    if own and family.thinking == THINK and own[0].startswith("<") and own[1].startswith("<"):
        return replace(family, thinking=own)
    return family


def can_think(model: ChatModel) -> bool:
    """Whether the model thinks before it answers, when it is let."""
    family = family_of(model)
    if family.thinks or model.parser.endswith("-thinking") or model.parser.endswith("-think"):
        return True
    if family is PLAIN:
        return False
    if model.uses_jinja:
        traits = model.jinja_traits
        return traits is not None and (traits.thinking or family.thinking[1] in model.template_text)
    return model.go_traits.thinking is not None or model.go_traits.names >= {"Thinking", "Think"}


def parser_for(
    family: Family,
    tools: Sequence[Tool] = (),
    *,
    thinks: bool,
    keep_thinking: bool = True,
    prompt_tail: str = "",
    own: Collection[str] = (),
) -> StreamParser:
    """A parser for one answer; `prompt_tail` is the prompt's end, where thinking may have been opened, `own`
    the tags that the client uses itself.
    """
    if family.name == "harmony":
        return HarmonyParser(tools, keep_thinking=keep_thinking, prompt_tail=prompt_tail)
    opened = thinks and prompt_tail.rstrip().endswith(family.thinking[0])
    return TaggedParser(
        family, tools, thinks=thinks, keep_thinking=keep_thinking, thinking_open=opened, own=own
    )

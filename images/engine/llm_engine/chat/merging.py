"""Neighbouring messages of one role become one: most templates were never trained on two in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_engine.chat.messages import Message


def merge(messages: Sequence[Message]) -> list[Message]:
    """Contents are joined with a blank line; tool results stay apart, since each answers its own call."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role != "tool":
            last = merged[-1]
            merged[-1] = replace(
                last,
                content=_join(last.content, message.content),
                thinking=_join(last.thinking, message.thinking),
                images=(*last.images, *message.images),
                tool_calls=(*last.tool_calls, *message.tool_calls),
            )
        else:
            merged.append(message)
    return merged


def _join(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first and second else first or second


def system_text(messages: Sequence[Message]) -> str:
    return "\n\n".join(m.content for m in messages if m.role == "system")

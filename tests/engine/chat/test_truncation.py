"""Which messages go when a conversation is too long."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llm_engine.chat.messages import Call, Message
from llm_engine.chat.truncation import shorten


def turns(shape: str) -> list[Message]:
    """`s` system, `u` user, `a` assistant, `t` tool result, `c` a call."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "c": "assistant"}
    calls = {"c": (Call("f"),)}
    return [Message(roles[c], f"{c}{at}", tool_calls=calls.get(c, ())) for at, c in enumerate(shape)]


@pytest.mark.parametrize(
    ("shape", "room", "whole", "kept"),
    [
        ("suauau", 4, False, "s0 u3 a4 u5"),
        ("suauau", 3, False, "s0 a4 u5"),
        ("suauau", 3, True, "s0 u5"),
        ("suauau", 1, False, "s0 u5"),
        ("ususu", 3, False, "s1 s3 u4"),
        ("uctau", 3, False, "a3 u4"),  # a result goes with its call
        ("uctau", 4, False, "c1 t2 a3 u4"),
        ("uct", 1, False, "t2"),
        ("uauau", 2, True, "u4"),
        ("u", 0, False, "u0"),
        ("su", 0, False, "s0 u1"),
    ],
)
async def test_the_oldest_go_first(shape: str, room: int, whole: bool, kept: str) -> None:
    async def fits(messages: Sequence[Message]) -> bool:
        return len(messages) <= room

    shorter = await shorten(turns(shape), fits, whole_turns=whole)
    assert " ".join(message.content for message in shorter) == kept


async def test_a_long_conversation_is_tried_few_times() -> None:
    tries = 0

    async def fits(messages: Sequence[Message]) -> bool:
        nonlocal tries
        tries += 1
        return len(messages) <= 37

    shorter = await shorten(turns("s" + "ua" * 2000 + "u"), fits, whole_turns=False)
    assert len(shorter) == 37
    assert tries <= 13

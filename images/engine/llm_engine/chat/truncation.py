"""Which messages of a conversation to leave out so that its prompt fits the context.

The oldest go first; system messages and the last message always stay. The number of prompts that are built
and counted grows with the logarithm of the conversation's length, not with its length.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from llm_engine.chat.messages import Message

Fits = Callable[[Sequence[Message]], Awaitable[bool]]


def cut_points(messages: Sequence[Message], *, whole_turns: bool) -> list[int]:
    """Where a shortened conversation may begin; the last one leaves the last message alone.

    Never at a tool's result, whose call would be gone; with `whole_turns` only at a user's message, for
    templates that insist on it.
    """
    last = len(messages) - 1
    allowed = ("user",) if whole_turns else ("user", "assistant")
    first = next((at for at, message in enumerate(messages) if message.role != "system"), last)
    found = [at for at in range(first + 1, last) if messages[at].role in allowed]
    return [*found, last] if last > 0 else []


def from_point(messages: Sequence[Message], at: int) -> list[Message]:
    """The conversation from the message `at` on, and all system messages before it."""
    return [m for m in messages[:at] if m.role == "system"] + list(messages[at:])


async def shorten(messages: Sequence[Message], fits: Fits, *, whole_turns: bool) -> list[Message]:
    """The longest conversation that fits, of those that leave the oldest messages out.

    When not even the last message fits, it comes back alone with the system messages; cutting inside a
    message is the caller's matter. The whole conversation is taken not to fit.
    """
    points = cut_points(messages, whole_turns=whole_turns)
    if not points:
        return list(messages)
    low, high = 0, len(points) - 1
    while low < high:
        middle = (low + high) // 2
        if await fits(from_point(messages, points[middle])):
            high = middle
        else:
            low = middle + 1
    return from_point(messages, points[low])

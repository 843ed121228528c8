"""Tools for templates that know nothing of them: what cannot be said in roles is said in text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from llm_engine.chat.messages import Message, Tool


def describe(messages: Sequence[Message], tools: Sequence[Tool], example: str) -> list[Message]:
    """The tools as part of the system message, with how to call them."""
    lines = [json.dumps(tool.as_json()["function"], ensure_ascii=False) for tool in tools]
    text = (
        "You can call these tools:\n\n"
        + "\n".join(lines)
        + f"\n\nTo call one, write exactly this, and nothing after it:\n{example}"
    )
    for at, message in enumerate(messages):
        if message.role == "system":
            told = replace(message, content=f"{message.content}\n\n{text}")
            return [*messages[:at], told, *messages[at + 1 :]]
    return [Message("system", text), *messages]


def spell_out(messages: Sequence[Message], *, calls: bool, results: bool) -> list[Message]:
    """Past calls and results as plain text, where the template would drop or refuse them."""
    return [_result(m) if results and m.role == "tool" else _call(m) if calls else m for m in messages]


def _call(message: Message) -> Message:
    if not message.tool_calls:
        return message
    texts = [
        json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
        for call in message.tool_calls
    ]
    content = "\n".join([message.content, *texts] if message.content else texts)
    return replace(message, content=content, tool_calls=())


def _result(message: Message) -> Message:
    name = f" of {message.tool_name}" if message.tool_name else ""
    return Message("user", f"Result{name}:\n{message.content}", images=message.images)

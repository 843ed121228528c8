"""Ollama's messages on their ways: from a client to the prompt, and from a client to the store and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from llm_engine.api.gojson import convert
from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.ollama_types import Message
from llm_engine.chat import messages as chat


def chat_message(message: Message) -> chat.Message:
    calls = [
        chat.Call(item.function.name, item.function.arguments, item.id, item.function.index)
        for item in message.tool_calls
    ]
    return chat.Message(
        role=chat.role_named(str(message.role)),
        content=message.content,
        thinking=message.thinking,
        images=[image.data for image in message.images],
        tool_calls=calls,
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )


def stored_message(message: Message) -> dict[str, Any]:
    """As Ollama keeps it with a model: what is empty is left out, but for the role and the text."""
    document: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.thinking:
        document["thinking"] = message.thinking
    if message.images:
        document["images"] = [base64.b64encode(image.data).decode() for image in message.images]
    if message.tool_calls:
        document["tool_calls"] = [
            {
                **({"id": item.id} if item.id else {}),
                "function": {
                    "index": item.function.index,
                    "name": item.function.name,
                    "arguments": item.function.arguments,
                },
            }
            for item in message.tool_calls
        ]
    if message.tool_name:
        document["tool_name"] = message.tool_name
    if message.tool_call_id:
        document["tool_call_id"] = message.tool_call_id
    return document


def kept_message(document: Mapping[str, Any]) -> chat.Message:
    """A message of the store; of one with fields that cannot be read, who said it and what."""
    try:
        return chat_message(convert(dict(document), Message))
    except GoDecodeError:
        return chat.Message(str(document.get("role", "user")), str(document.get("content", "")))

"""Documents that an answer shall rest on: a template that has a place for them gets them, others get text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_engine.chat.messages import Message

Document = Mapping[str, Any]
"""As Hugging Face has it: `title` and `text`, and whatever else a template knows."""
_TITLES, _TEXTS = ("title", "doc_id", "id", "name"), ("text", "content", "contents", "snippet")


def tell(messages: Sequence[Message], documents: Sequence[Document]) -> list[Message]:
    """The documents as part of the system message."""
    shown = [f"[{number}] {_text(document)}" for number, document in enumerate(documents, 1)]
    text = "Answer from these documents:\n\n" + "\n\n".join(shown)
    for at, message in enumerate(messages):
        if message.role == "system":
            told = replace(message, content=f"{message.content}\n\n{text}")
            return [*messages[:at], told, *messages[at + 1 :]]
    return [Message("system", text), *messages]


def _text(document: Document) -> str:
    title, text = (
        next((str(document[key]) for key in keys if document.get(key)), "") for keys in (_TITLES, _TEXTS)
    )
    if not text:
        return json.dumps(dict(document), ensure_ascii=False)
    return f"{title}\n{text}" if title else text

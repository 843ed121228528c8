"""A conversation as templates see it, whichever API it came through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NEWER_NAMES = {"developer": "system"}
"""OpenAI's newer words for a role; models were trained with the older ones."""


def role_named(word: str) -> str:
    """The role that a client means by a word."""
    word = word.lower()
    return _NEWER_NAMES.get(word, word)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that an assistant made; `arguments` keeps the order of its keys."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str = ""
    thinking: str = ""
    images: Sequence[bytes] = ()
    tool_calls: Sequence[Call] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema as the client wrote it."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    type: str = "function"

    def as_json(self) -> dict[str, Any]:
        """The OpenAI shape, which is what Jinja templates were trained with."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        return {"type": self.type, "function": function}

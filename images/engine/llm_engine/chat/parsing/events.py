"""What a parser makes of a model's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call. `arguments` keeps the order of keys; `id` is empty unless the model gave one."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    id: str = ""


Event = Content | Thinking | ToolCall


class StreamParser(Protocol):
    """Fed with the answer as it grows. The events do not depend on where the text was cut.

    `feed` returns what is certain so far; `finish` the rest, when the model has stopped. `cut`: it did not
    stop of itself, but at a limit or a text of the client's. A call that it had not finished is then none:
    half a file must not be written, nor half a command run.
    """

    @property
    def held(self) -> int:
        """How many characters of a call wait for its end: so much is read in one go when it comes."""
        ...

    def feed(self, text: str) -> list[Event]: ...

    def finish(self, *, cut: bool = False) -> list[Event]: ...


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring texts of one kind as one event."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Content) and isinstance(last, Content):
            result[-1] = Content(last.text + event.text)
        elif isinstance(event, Thinking) and isinstance(last, Thinking):
            result[-1] = Thinking(last.text + event.text)
        else:
            result.append(event)
    return result

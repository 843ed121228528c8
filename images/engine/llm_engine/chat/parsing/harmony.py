"""OpenAI's harmony format (gpt-oss): messages with a channel and a recipient.

`analysis` is thinking, `final` is the answer, and a message to `functions.NAME` is a tool call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import repair
from llm_engine.chat.parsing.events import Content, Event, Thinking, ToolCall, joined
from llm_engine.chat.parsing.leftovers import as_text
from llm_engine.chat.parsing.tags import earliest, held
from llm_engine.chat.parsing.values import Made

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", START)
_HEADER_TAGS = (START, CHANNEL, MESSAGE, CONSTRAIN)
_RECIPIENT = re.compile(r"to=(\S+?)(?=\s|<\||$)")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
MAX_HEADER = 400


class HarmonyParser:
    def __init__(self, tools: Sequence[Tool], *, keep_thinking: bool = True, prompt_tail: str = "") -> None:
        self._tools = tools
        self._keep = keep_thinking
        self._buffer = ""
        self._body: str | None = None  # None: in a header; else the channel of the message
        self._recipient = ""
        self._arguments = ""
        self._count = 0
        opened = prompt_tail.rpartition(START)[2]
        if MESSAGE in opened and not any(end in opened for end in _ENDS):
            self._begin(opened.partition(MESSAGE)[0])
        elif CHANNEL in opened:
            self._buffer = opened[opened.index(CHANNEL) :]

    @property
    def held(self) -> int:
        return len(self._arguments)

    def feed(self, text: str) -> list[Event]:
        self._buffer += text
        events: list[Event] = []
        while self._header(events) if self._body is None else self._message(events):
            pass
        return joined(events)

    def finish(self, *, cut: bool = False) -> list[Event]:
        events: list[Event] = []
        rest, self._buffer = self._buffer, ""
        if self._body is None:
            if not any(tag in rest for tag in _HEADER_TAGS) and not self._is_header(rest):
                self._body = "final"
                self._say(rest, events)
        else:
            self._say(rest, events)
            self._end(events, cut=cut)
        return joined(events)

    @staticmethod
    def _is_header(text: str) -> bool:
        word = text.strip()
        return not word or any(tag.startswith(word) for tag in _HEADER_TAGS) or word == "assistant"

    def _header(self, events: list[Event]) -> bool:
        lead = self._buffer.lstrip()
        starts = (*_HEADER_TAGS, *_ENDS, "assistant", "to=")
        plain = bool(lead) and not any(lead.startswith(s) or s.startswith(lead) for s in starts)
        at = self._buffer.find(MESSAGE, 0, MAX_HEADER + 1)
        if at >= 0 and not plain:
            self._begin(self._buffer[:at])
            self._buffer = self._buffer[at + len(MESSAGE) :]
            return True
        if plain or len(self._buffer) > MAX_HEADER:
            # No header at all: the model just answers. A tag that began one must not be met again.
            tag = next((tag for tag in _HEADER_TAGS if lead.startswith(tag)), "")
            self._buffer = lead[len(tag) :] if tag else self._buffer
            self._begin("")
            return True
        return False

    def _begin(self, header: str) -> None:
        channel = _CHANNEL_NAME.search(header)
        recipient = _RECIPIENT.search(header)
        self._body = channel[1] if channel else "final"
        self._recipient = recipient[1] if recipient else ""
        self._arguments = ""

    def _message(self, events: list[Event]) -> bool:
        tags = (*_ENDS, *_HEADER_TAGS)
        found = earliest(self._buffer, tags)
        if found is None:
            keep = held(self._buffer, tags)
            ready = self._buffer[: len(self._buffer) - keep]
            self._buffer = self._buffer[len(self._buffer) - keep :]
            self._say(ready, events)
            return False
        at, tag = found
        self._say(self._buffer[:at], events)
        if tag in (MESSAGE, CONSTRAIN):
            self._buffer = self._buffer[at + len(tag) :]  # of no header: it says nothing
            return True
        self._end(events)
        # A channel tag without an end: the next message has begun.
        self._buffer = self._buffer[at if tag in (CHANNEL, START) else at + len(tag) :]
        self._body = None
        return True

    def _say(self, text: str, events: list[Event]) -> None:
        if not text:
            return
        if self._recipient:
            self._arguments += text
        elif self._body == "analysis":
            if self._keep:
                events.append(Thinking(text))
        else:
            events.append(Content(text))

    def _end(self, events: list[Event], *, cut: bool = False) -> None:
        if not self._recipient:
            return
        name, self._recipient = self._recipient.removeprefix("functions."), ""
        text, self._arguments = self._arguments, ""
        try:
            arguments = (repair.strict if cut else repair.loads)(text if cut or text.strip() else "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            events.append(Content(text))
            return
        if not self._tools:
            events.append(Content(as_text(Made(name, arguments))))
            return
        events.append(ToolCall(name, arguments, self._count))
        self._count += 1

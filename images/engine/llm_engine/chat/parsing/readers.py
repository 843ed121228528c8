"""Collecting the inside of one tool call until it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import repair
from llm_engine.chat.parsing.bodies import from_json
from llm_engine.chat.parsing.callend import CallEnd
from llm_engine.chat.parsing.tags import earliest
from llm_engine.chat.parsing.values import Body, Made


@dataclass(frozen=True, slots=True)
class Read:
    """A finished reading: the calls, or the text if it was none after all, and what follows."""

    calls: Sequence[Made]
    text: str
    rest: str


class Reader(Protocol):
    @property
    def held(self) -> int:
        """How many characters there are so far."""
        ...

    def feed(self, text: str) -> Read | None: ...

    def finish(self, *, cut: bool) -> Read: ...


class TaggedReader:
    """Reads up to a closing tag. One inside an argument does not close: the argument goes on."""

    def __init__(self, closes: Sequence[str], body: Body, tools: Sequence[Tool]) -> None:
        self._closes, self._body, self._tools = closes, body, tools
        self._text = ""
        self._end = CallEnd(closes)

    @property
    def held(self) -> int:
        return len(self._text)

    def feed(self, text: str) -> Read | None:
        self._text += text
        found = self._end.find(self._text)
        return None if found is None else self._read(*found)

    def _read(self, at: int, tag: str) -> Read:
        inside, rest = self._text[:at], self._text[at + len(tag) :]
        calls = self._body(inside, self._tools)
        return Read(calls or (), "" if calls else inside, rest)

    def finish(self, *, cut: bool) -> Read:
        end = self._end
        if end.in_value or (cut and not (end.closed and not end.pairs)):
            return Read((), self._text, "")
        # In a text whose quotes do not match, the tag that was taken for a part of it is the end.
        found = earliest(self._text, self._closes) if end.in_string else None
        return self._read(*(found or (len(self._text), "")))


MOST_HEAD = 400
"""What stands before a call's JSON is no longer than this; else it is no call."""


class ValueReader:
    """Reads up to the end of a JSON value; what stands before it (a name) belongs to the call."""

    def __init__(self, body: Body, tools: Sequence[Tool]) -> None:
        self._body, self._tools = body, tools
        self._text = ""
        self._span = repair.JsonSpan()
        self._from: int | None = None

    @property
    def held(self) -> int:
        return len(self._text)

    def feed(self, text: str) -> Read | None:
        self._text += text
        if self._from is None:
            head = self._text[:MOST_HEAD]
            starts = [at for at in (head.find("{"), self._list_start(head)) if at >= 0]
            if not starts:
                return Read((), head, self._text[MOST_HEAD:]) if len(self._text) > MOST_HEAD else None
            self._from = min(starts)
        end = self._span.feed(self._text, self._from)
        self._from = len(self._text)
        if end is None:
            return None
        inside, rest = self._text[:end], self._text[end:]
        calls = self._body(inside, self._tools)
        return Read(calls or (), "" if calls else inside, rest)

    @staticmethod
    def _list_start(text: str) -> int:
        """A list stands alone: a bracket after a name opens `[ARGS]`."""
        lead = len(text) - len(text.lstrip())
        return lead if text[lead : lead + 1] == "[" else -1

    def finish(self, *, cut: bool) -> Read:
        calls = self._body(self._text, self._tools) if self._from is not None and not cut else None
        return Read(calls or (), "" if calls else self._text, "")


_FENCES = ("```json", "```tool_code", "```")


class BareReader:
    """A call without any tag: JSON at the very beginning of an answer that names a known tool."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools
        self._text = ""
        self._calls: list[Made] = []
        self._done = 0  # up to here the text has become calls
        self._seen = 0  # here stands what is no call
        self._looked = 0  # up to here there are blanks behind them
        self._span: repair.JsonSpan | None = None
        self._begun = 0
        self._from = 0

    @staticmethod
    def may_begin(text: str) -> bool:
        """Whether an answer that begins with `text` may be a call."""
        lead = text.lstrip()
        if lead.startswith(("{", "[")):
            return True
        return any(fence.startswith(lead) or lead.startswith(fence) for fence in _FENCES[:2])

    @property
    def held(self) -> int:
        return len(self._text)

    def feed(self, text: str) -> Read | None:
        self._text += text
        while True:
            if self._span is None:
                start = self._start()
                if start is None:
                    return None
                if start < 0:
                    return self._end(self._seen)
                self._span, self._begun, self._from = repair.JsonSpan(), start, start
            end = self._span.feed(self._text, self._from)
            self._from = len(self._text)
            if end is None:
                return None
            self._span = None
            if not self._take(self._text[self._begun : end], end):
                return self._end(end)

    def _start(self) -> int | None:
        """Where the next value begins; None: not known yet; negative: there is none."""
        at = max(self._done, self._looked)
        while at < len(self._text) and self._text[at] in " \t\r\n;,":
            at += 1
        self._looked = at
        rest = self._text[at:]
        if any(fence.startswith(rest) for fence in _FENCES):
            return None
        for fence in _FENCES:
            if rest.startswith(fence):
                inner = rest[len(fence) :]
                at += len(fence) + len(inner) - len(inner.lstrip())
                rest = self._text[at:]
                break
        if not rest:
            return None
        self._seen = at
        return at if rest[0] in "{[" else -1

    def _take(self, value: str, end: int) -> bool:
        try:
            calls = from_json(repair.loads(value), self._tools, known_only=True)
        except ValueError:
            calls = None
        if calls is None:
            return False
        self._calls += calls
        self._done = end
        return True

    def _end(self, seen: int) -> Read:
        """What was `seen` is no call; what follows it may hold one between tags."""
        if not self._calls:
            return Read((), self._text[:seen], self._text[seen:])
        rest = self._text[self._done :]
        return Read(self._calls, "", "" if rest.strip(" \t\r\n;,`") == "" else rest)

    def finish(self, *, cut: bool) -> Read:
        start = None if cut else self._start()
        if start is not None and start >= 0:
            self._take(self._text[start:], len(self._text))
        return self._end(len(self._text))

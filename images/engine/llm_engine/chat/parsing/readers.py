"""Collecting the inside of one tool call until it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import repair
from llm_engine.chat.parsing.bodies import Body, Made, from_json
from llm_engine.chat.parsing.tags import earliest


@dataclass(frozen=True, slots=True)
class Read:
    """A finished reading: the calls, or the text if it was none after all, and what follows."""

    calls: Sequence[Made]
    text: str
    rest: str


class Reader(Protocol):
    def feed(self, text: str) -> Read | None: ...

    def finish(self) -> Read: ...


class TaggedReader:
    """Reads up to a closing tag. One inside an argument does not close: the argument goes on."""

    def __init__(self, closes: Sequence[str], body: Body, tools: Sequence[Tool]) -> None:
        self._closes, self._body, self._tools = closes, body, tools
        self._text = ""
        self._from = 0

    def feed(self, text: str) -> Read | None:
        self._text += text
        longest = max(map(len, self._closes))
        while found := earliest(self._text, self._closes, self._from):
            at, tag = found
            inside, rest = self._text[:at], self._text[at + len(tag) :]
            if _unfinished(inside):
                self._from = at + len(tag)
                continue
            calls = self._body(inside, self._tools)
            return Read(calls or (), "" if calls else inside, rest)
        self._from = max(self._from, len(self._text) - longest + 1)
        return None

    def finish(self) -> Read:
        found = earliest(self._text, self._closes)
        if found and any(mark in self._text[found[0] + len(found[1]) :] for mark in _IN_ARGUMENT):
            found = None  # it stood inside an argument
        end = found[0] if found else len(self._text)
        rest = self._text[end + len(found[1]) :] if found else ""
        inside = self._text[:end]
        calls = self._body(inside, self._tools)
        return Read(calls or (), "" if calls else inside, rest)


_IN_ARGUMENT = ("</parameter>", "</function>")


def _unfinished(text: str) -> bool:
    """Whether a closing tag after `text` stands inside an argument: in a JSON string, or in a parameter."""
    if "<function=" in text and "</function>" not in text:
        return True
    if not text.lstrip().startswith(("{", "[")):
        return False
    span = repair.JsonSpan()
    return span.feed(text) is None and span.in_string


class ValueReader:
    """Reads up to the end of a JSON value; what stands before it (a name) belongs to the call."""

    def __init__(self, body: Body, tools: Sequence[Tool]) -> None:
        self._body, self._tools = body, tools
        self._text = ""
        self._span = repair.JsonSpan()
        self._from: int | None = None

    def feed(self, text: str) -> Read | None:
        self._text += text
        if self._from is None:
            plain = self._text.replace("[ARGS]", "\0" * 6).replace("[CALL_ID]", "\0" * 9)
            starts = [at for at in (plain.find("{"), self._list_start(plain)) if at >= 0]
            if not starts:
                return None
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

    def finish(self) -> Read:
        calls = self._body(self._text, self._tools) if self._from is not None else None
        return Read(calls or (), "" if calls else self._text, "")


_FENCES = ("```json", "```tool_code", "```")


class BareReader:
    """A call without any tag: JSON at the very beginning of an answer that names a known tool."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools
        self._text = ""
        self._calls: list[Made] = []
        self._done = 0  # up to here the text has become calls
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

    def feed(self, text: str) -> Read | None:
        self._text += text
        while True:
            if self._span is None:
                start = self._start()
                if start is None:
                    return None
                if start < 0:
                    return self._end()
                self._span, self._begun, self._from = repair.JsonSpan(), start, start
            end = self._span.feed(self._text, self._from)
            self._from = len(self._text)
            if end is None:
                return None
            self._span = None
            if not self._take(self._text[self._begun : end], end):
                return self._end()

    def _start(self) -> int | None:
        """Where the next value begins; None: not known yet; negative: there is none."""
        at = self._done
        while at < len(self._text) and self._text[at] in " \t\r\n;,":
            at += 1
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

    def _end(self) -> Read:
        rest = self._text[self._done :]
        if not self._calls:
            return Read((), rest, "")
        return Read(self._calls, "", "" if rest.strip(" \t\r\n;,`") == "" else rest)

    def finish(self) -> Read:
        start = self._start()
        if start is not None and start >= 0:
            self._take(self._text[start:], len(self._text))
        return self._end()

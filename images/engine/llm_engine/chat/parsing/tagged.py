"""The parser for most families: thinking between two tags, then text with tool calls between tags."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.events import Content, Event, Thinking, ToolCall, joined
from llm_engine.chat.parsing.family import Family
from llm_engine.chat.parsing.leftovers import as_text, untagged
from llm_engine.chat.parsing.readers import BareReader, Read, Reader, TaggedReader, ValueReader
from llm_engine.chat.parsing.tags import could_grow, earliest, held, whole_tags


class _State(Enum):
    START = auto()
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


class TaggedParser:
    """`keep_thinking` is False where the client asked for none: what the model thinks all the same is
    dropped. Without tools a call becomes text, as no client waits for it; `own` are the tags that the client
    itself has written, which are then its own matter.
    """

    def __init__(
        self,
        family: Family,
        tools: Sequence[Tool],
        *,
        thinks: bool,
        keep_thinking: bool = True,
        thinking_open: bool = False,
        own: Collection[str] = (),
    ) -> None:
        self._family = family
        self._tools = tools
        self._thinks = thinks
        self._keep = keep_thinking
        self._opens = tuple(tag for tag in family.opens if tools or tag not in own)
        self._noise = tuple(tag for tag in (*family.noise, *family.stray_closes) if tools or tag not in own)
        # A closing tag without its opening one, from a model that was kept from thinking.
        self._stray = family.thinking[1] if thinks else ""
        self._buffer = ""
        self._blank = ""  # blanks that may yet turn out to stand before a tag
        self._skip_blanks = thinking_open
        self._state = _State.THINKING if thinking_open else _State.START
        self._reader: Reader | None = None
        self._count = 0
        self._told = 0  # calls that became text

    @property
    def held(self) -> int:
        return 0 if self._reader is None else self._reader.held

    def feed(self, text: str) -> list[Event]:
        self._buffer += text
        events: list[Event] = []
        while self._step(events):
            pass
        return joined(events)

    def finish(self, *, cut: bool = False) -> list[Event]:
        events: list[Event] = []
        if self._state is _State.START:
            if self._thinks:
                self._buffer = whole_tags(self._buffer, (self._family.thinking[0],))
            self._state = _State.CONTENT
        while True:
            while self._step(events):
                pass
            if self._reader is None:
                break
            self._read(self._reader.finish(cut=cut), events)
        rest, self._buffer = self._buffer, ""
        if self._state is _State.THINKING:
            self._think(whole_tags(rest, (self._family.thinking[1],)), events)
        else:
            self._say(whole_tags(rest, self._tags()), events)
            if self._blank and not self._count:
                events.append(Content(self._blank))
        return joined(events)

    # One step takes something from the buffer, or returns False to wait for more.

    def _step(self, events: list[Event]) -> bool:
        if self._state is _State.START:
            return self._start()
        if self._state is _State.CALL:
            return self._call(events)
        if self._state is _State.THINKING:
            return self._in_thinking(events)
        return self._in_content(events)

    def _start(self) -> bool:
        lead = self._buffer.lstrip()
        if not lead:
            return False
        opening = self._family.thinking[0] if self._thinks else ""
        if opening and lead.startswith(opening):
            self._buffer = lead[len(opening) :]
            self._enter_thinking()
            return True
        if opening and opening.startswith(lead):
            return False
        if self._family.bare and self._tools and BareReader.may_begin(lead):
            if lead in ("`", "``", "```"):
                return False
            self._reader, self._state = BareReader(self._tools), _State.CALL
            return True
        self._state = _State.CONTENT
        return True

    def _enter_thinking(self) -> None:
        self._state, self._skip_blanks, self._blank = _State.THINKING, True, ""

    def _in_thinking(self, events: list[Event]) -> bool:
        closing = self._family.thinking[1]
        at = self._buffer.find(closing)
        if at >= 0:
            self._think(self._buffer[:at], events)
            self._buffer = self._buffer[at + len(closing) :]
            # After thinking the answer begins anew: it may be a bare call.
            self._blank, self._skip_blanks, self._stray = "", True, ""
            self._state = _State.START if self._family.bare and self._tools else _State.CONTENT
            return True
        keep = held(self._buffer, (closing,))
        ready, self._buffer = (
            self._buffer[: len(self._buffer) - keep],
            self._buffer[len(self._buffer) - keep :],
        )
        self._think(ready, events)
        return False

    def _think(self, text: str, events: list[Event]) -> None:
        text = self._trimmed(text)
        if text and self._keep:
            events.append(Thinking(text))

    def _trimmed(self, text: str) -> str:
        """`text` without leading blanks where they are to be skipped; trailing ones wait in `_blank`."""
        if self._skip_blanks:
            text = text.lstrip()
            if not text:
                return ""
            self._skip_blanks = False
        body = text.rstrip()
        if not body:
            self._blank += text
            return ""
        out = self._blank + body
        self._blank = text[len(body) :]
        return out

    def _tags(self) -> tuple[str, ...]:
        """What means something in content."""
        again = (self._family.thinking[0],) if self._thinks and self._family.rethinks else ()
        return (*self._opens, *self._noise, *again, *((self._stray,) if self._stray else ()))

    def _in_content(self, events: list[Event]) -> bool:
        tags = self._tags()
        found = earliest(self._buffer, tags)
        if found is None or could_grow(self._buffer, found, tags):
            at = found[0] if found else len(self._buffer) - held(self._buffer, tags)
            ready, self._buffer = self._buffer[:at], self._buffer[at:]
            self._say(ready, events)
            return False
        at, tag = found
        self._say(self._buffer[:at], events)
        self._buffer = self._buffer[at + len(tag) :]
        if tag in self._opens:
            self._open(tag)
        elif tag in self._noise:
            self._blank, self._skip_blanks = "", True
        elif tag == self._stray:
            # Once: a later one is what the model writes about.
            self._blank, self._skip_blanks, self._stray = "", True, ""
        else:
            self._enter_thinking()
        return True

    def _say(self, text: str, events: list[Event]) -> None:
        # Without tags to come there is nothing to hold blanks back for.
        if not self._opens and not self._noise and not self._stray and not self._skip_blanks:
            text, self._blank = self._blank + text, ""
        else:
            text = self._trimmed(text)
        if text:
            events.append(Content(text))

    def _open(self, tag: str) -> None:
        family = self._family
        if self._tools:
            self._blank = ""
        self._state = _State.CALL
        if family.closes:
            self._reader = TaggedReader(family.closes_for(tag), family.body_for(tag), self._tools)
        else:
            self._reader = ValueReader(family.body, self._tools)

    def _call(self, events: list[Event]) -> bool:
        assert self._reader is not None
        text, self._buffer = self._buffer, ""
        if not text:
            return False
        read = self._reader.feed(text)
        if read is None:
            return False
        self._read(read, events)
        return True

    def _read(self, read: Read, events: list[Event]) -> None:
        tagged = not isinstance(self._reader, BareReader)
        self._reader, self._state = None, _State.CONTENT
        self._buffer = read.rest + self._buffer
        if read.calls and not self._tools:
            for made in read.calls:
                self._blank = self._blank or "\n" * bool(self._told)
                self._told += 1
                self._say(as_text(made), events)
        elif read.calls:
            for made in read.calls:
                events.append(ToolCall(made.name, made.arguments, self._count, made.id))
                self._count += 1
            self._skip_blanks, self._blank = True, ""
        elif read.text:
            # What was no call is the model's text; it must not be taken for a call again.
            text = untagged(read.text, (*self._opens, *self._noise)) if tagged else read.text
            self._say(text, events)

"""Finding where a call ends: at a closing tag that stands outside its values.

An argument may hold anything, a closing tag as well: an agent that edits a chat template writes them all day.
The text is read once, character by character or in one piece, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What opens a value, and what alone ends it.
_VALUES = {
    "<parameter=": "</parameter>",
    '<parameter name="': "</parameter>",
    '<｜DSML｜parameter name="': "</｜DSML｜parameter>",
    '<param name="': "</param>",
    "<arg_key>": "</arg_key>",
    "<arg_value>": "</arg_value>",
}
_CDATA, _CDATA_END = "<![CDATA[", "]]>"
_QUOTES = ('<|"|>', "<escape>")
_HALF_QUOTES = ('<|"', '<|"|')
_IN_STRING = {'"': re.compile(r'["\\]'), "'": re.compile(r"['\\]")}
_PYTHON = re.compile(r"\s{0,20}\[?\s{0,20}[A-Za-z_][\w.]{0,200}\(")
_GEMMA = re.compile(r"\s{0,20}call:")
_LOOK = 64
"""How far behind a bracket is looked for what tells JSON's list from others."""


class CallEnd:
    """`find` is asked again with the same text, grown."""

    __slots__ = ("_at", "_closer", "_depth", "_longest", "_quote", "_tokens", "closed", "pairs")

    def __init__(self, closes: Sequence[str]) -> None:
        tags = sorted({*closes, *_VALUES, *_QUOTES}, key=len, reverse=True)
        self._longest = len(tags[0])
        self._tokens = re.compile("|".join([*map(re.escape, tags), r'["\'{}\[\]]']))
        self._at = 0
        self._closer = ""  # of the value that is open
        self._depth = 0  # of JSON's brackets
        self._quote = ""  # of the text that is open
        self.closed = False
        """Whether a JSON value has come to its end, and none has begun since."""
        self.pairs = False
        """Whether there were values between tags."""

    @property
    def in_string(self) -> bool:
        """Whether the text ends inside a text of JSON or Python."""
        return bool(self._quote)

    @property
    def in_value(self) -> bool:
        """Whether the text ends inside a value between tags."""
        return bool(self._closer)

    def find(self, text: str) -> tuple[int, str] | None:
        """Where the closing tag stands, and which one; None: not there yet."""
        while self._at < len(text):
            if self._closer:
                going = self._leave_value(text)
            elif self._quote:
                going = self._leave_string(text)
            else:
                found = self._tokens.search(text, self._at)
                if found is None:
                    self._at = max(self._at, len(text) - self._longest + 1)
                    return None
                token = found[0]
                if len(token) > 1 and token not in _VALUES and token not in _QUOTES:
                    return found.start(), token
                self._at = found.end()
                going = self._token(text, token, found.start())
            if not going:
                return None
        return None

    def _leave_value(self, text: str) -> bool:
        """To the end of the value, or as far as there is text."""
        tags = (self._closer,) if self._closer != _VALUES['<param name="'] else (self._closer, _CDATA)
        places = [(text.find(tag, self._at), tag) for tag in tags]
        at, tag = min(((at, tag) for at, tag in places if at >= 0), default=(-1, ""))
        if at < 0:
            self._at = max(self._at, len(text) - max(map(len, tags)) + 1)
            return False
        self._at = at + len(tag)
        if tag == _CDATA:
            self._closer = _CDATA_END
        else:
            self._closer = _VALUES['<param name="'] if tag == _CDATA_END else ""
        return True

    def _leave_string(self, text: str) -> bool:
        found = _IN_STRING[self._quote].search(text, self._at)
        if found is None:
            self._at = len(text)
            return False
        if found[0] == self._quote:
            self._quote, self._at = "", found.end()
            return True
        if found.end() == len(text):
            self._at = found.start()  # what is escaped is still to come
            return False
        self._at = found.end() + 1
        return True

    def _token(self, text: str, token: str, start: int) -> bool:
        """False: what follows must be there first."""
        if token in _QUOTES:
            if self._depth == 0 and _GEMMA.match(text):
                self._closer, self.pairs = token, True
        elif token in _VALUES:
            if self._depth == 0:
                self._closer, self.pairs = _VALUES[token], True
        elif token in ('"', "'"):
            if 0 < len(text) - start < 3 and text.endswith(_HALF_QUOTES, max(start - 2, 0)):
                self._at = start - 2  # it may be Gemma's quote
                return False
            if token == '"' if self._depth else _PYTHON.match(text):
                self._quote = token
        elif token in "}]":
            if self._depth:
                self._depth -= 1
                self.closed = self._depth == 0
        elif self._depth or (token == "{" and not _GEMMA.match(text) and not _PYTHON.match(text)):
            self._depth, self.closed = self._depth + 1, False
        elif token == "[":
            return self._list(text, start)
        return True

    def _list(self, text: str, start: int) -> bool:
        """JSON's list, or Python's with calls in it (`[f(a=1)]`), whose quotes are others."""
        lead = text[start + 1 : start + 1 + _LOOK].lstrip()
        if not lead and len(text) <= start + _LOOK:
            self._at = start
            return False
        if not (lead[:1].isalpha() or lead[:1] == "_" or _PYTHON.match(text)):
            self._depth, self.closed = 1, False
        return True

"""Regular expressions of JSON Schema (`pattern`) as GBNF, inside a JSON string.

Covered: literals, classes, `.`, groups, alternation, quantifiers, `\\d \\w \\s` and anchors at both ends. A
pattern without an anchor may match anywhere in the text, so that side is left open. Look-around,
back-references and the like have no counterpart in a context-free grammar and are refused. Guarantees: what
a pattern lets through is the inside of a JSON string, so quotes, backslashes and control characters come
escaped or not at all.
"""

from __future__ import annotations

import json

_SHORT = {"d": "0-9", "w": "a-zA-Z0-9_", "s": " \\t\\n"}
_MEMBERS = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r"}
# What stands in a JSON string only behind a backslash.
_ESCAPED = (*range(0x20), ord('"'), ord("\\"))
_ANY = "char"
_MOST = 1000
LONGEST = 4000


def pattern_to_gbnf(pattern: object, at: str) -> str:
    if not isinstance(pattern, str):
        raise ValueError(f"{at}: pattern must be a string")
    if len(pattern) > LONGEST:
        raise ValueError(f"{at}: a pattern of {len(pattern)} characters is over the limit of {LONGEST}")
    parser = _Parser(pattern, at)
    text = parser.alternatives()
    if parser.rest:
        raise parser.error(f"unexpected {parser.rest[0]!r}")
    before = "" if pattern.startswith("^") else f"{_ANY}* "
    after = "" if pattern.endswith("$") and not pattern.endswith("\\$") else f" {_ANY}*"
    return f"{before}({text}){after}"


class _Parser:
    def __init__(self, pattern: str, at: str) -> None:
        self._pattern = pattern
        self._at = at
        self._i = 0

    @property
    def rest(self) -> str:
        return self._pattern[self._i :]

    def error(self, why: str) -> ValueError:
        return ValueError(f"{self._at}: pattern {self._pattern!r} cannot be used: {why}")

    def _next(self) -> str:
        if self._i >= len(self._pattern):
            raise self.error("it ends too early")
        char = self._pattern[self._i]
        self._i += 1
        return char

    def alternatives(self) -> str:
        options = [self._sequence()]
        while self.rest.startswith("|"):
            self._i += 1
            options.append(self._sequence())
        return " | ".join(options)

    def _sequence(self) -> str:
        items: list[str] = []
        while self.rest and self.rest[0] not in "|)":
            char = self._next()
            if char == "^" and self._i == 1:
                continue
            if char == "$" and not self.rest:
                continue
            if char in "^$":
                raise self.error(f"{char!r} in the middle")
            items.append(self._quantified(self._atom(char)))
        return " ".join(items) or '""'

    def _atom(self, char: str) -> str:
        if char == "(":
            if self.rest.startswith("?"):
                if not self.rest.startswith("?:"):
                    raise self.error("look-around and named groups are not supported")
                self._i += 2
            inner = self.alternatives()
            if self._next() != ")":
                raise self.error("a group is not closed")
            return f"({inner})"
        if char == "[":
            return self._class()
        if char == ".":
            return _ANY
        if char == "\\":
            return self._escape()
        if char in "*+?{":
            raise self.error(f"nothing to repeat before {char!r}")
        return _quote(char)

    def _escape(self) -> str:
        char = self._next()
        if char in _SHORT:
            return f"[{_SHORT[char]}]" if char != "s" else '(" " | "\\\\t" | "\\\\n")'
        if char.lower() in _SHORT:
            return rf'[^"\\\x00-\x1F{_SHORT[char.lower()]}]'
        if char in _CONTROL:
            return _quote(_CONTROL[char])
        if char.isalnum():
            raise self.error(f"the escape \\{char} is not supported")
        return _quote(char)

    def _class(self) -> str:
        negated = self.rest.startswith("^")
        self._i += negated
        members: list[tuple[int, int]] = []
        first = True
        while (char := self._next()) != "]" or first:
            first = False
            if char == "\\" and self.rest[:1] in _MEMBERS:
                members += _MEMBERS[self._next()]
                continue
            low = high = self._member(char)
            if self.rest.startswith("-") and self.rest[1:2] not in ("]", ""):
                self._next()
                high = self._member(self._next())
                if high < low:
                    raise self.error(f"the range {chr(low)!r} to {chr(high)!r} is the wrong way round")
            members.append((low, high))
        if negated:
            return rf'[^"\\\x7F\x00-\x1F{"".join(_range(*part) for part in members)}]'
        return _one_of(members)

    def _member(self, char: str) -> int:
        """The code point that stands in a class as `char`, or behind it."""
        if char == "\\":
            char = self._next()
            if char in _CONTROL:
                return ord(_CONTROL[char])
            if char.isalnum():
                raise self.error(f"the escape \\{char} in a class is not supported")
        return ord(char)

    def _quantified(self, item: str) -> str:
        head = self.rest[:1]
        if head and head in "*+?":
            self._i += 1
            item += head
        elif head == "{":
            end = self.rest.find("}")
            bounds = self.rest[1:end] if end > 0 else ""
            least, comma, most = bounds.partition(",")
            if not least.isdigit() or (most and not most.isdigit()):
                raise self.error(f"{{{bounds}}} is not a repetition")
            if int(least) > _MOST or (most and int(most) > _MOST):
                raise self.error(f"it repeats more than {_MOST} times")
            self._i += end + 1
            item += f"{{{least}{comma}{most}}}"
        else:
            return item
        if self.rest.startswith("?"):
            self._i += 1  # lazy or greedy: the same set of texts
        return item


def _quote(char: str) -> str:
    """A literal character as it stands inside a JSON string."""
    text = json.dumps(char, ensure_ascii=False)[1:-1]
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one_of(members: list[tuple[int, int]]) -> str:
    """A class of what may stand as it is, and beside it what has to be escaped."""
    escaped = [code for code in _ESCAPED if any(low <= code <= high for low, high in members)]
    plain = [part for low, high in members for part in _without_escaped(low, high)]
    options = [f"[{''.join(_range(*part) for part in plain)}]"] if plain else []
    options += [_quote(chr(code)) for code in escaped]
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _without_escaped(low: int, high: int) -> list[tuple[int, int]]:
    parts = []
    for code in _ESCAPED:
        if low <= code <= high:
            if low < code:
                parts.append((low, code - 1))
            low = code + 1
    if low <= high:
        parts.append((low, high))
    return parts


def _range(low: int, high: int) -> str:
    """A part of a GBNF class."""
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(code: int) -> str:
    char = chr(code)
    if char.isascii():
        return char if char.isalnum() else f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"

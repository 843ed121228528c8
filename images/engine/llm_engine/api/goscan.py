"""Finds the end of the first JSON value in a body, or says in the words of Go's scanner why there is none.

Only bodies that the fast parser refuses come here: broken ones, and good ones with something after them.
It works on bytes and without recursion, so neither encoding nor nesting can surprise it.
"""

from __future__ import annotations

import re

_SPACE = frozenset(b" \t\r\n")
_RUN = 1 << 16
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]{0,65536}')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPES = frozenset(b'"\\/bfnrt')
_END = -1


class GoSyntaxError(ValueError):
    pass


def quote_char(byte: int) -> str:
    """A byte as Go prints it in `invalid character 'x'`."""
    if byte == ord("'"):
        return r"'\''"
    if byte == ord('"'):
        return "'\"'"
    named = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r", 92: r"\\"}
    if byte in named:
        return f"'{named[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    if 0x80 <= byte <= 0xA0 or byte == 0xAD:
        return f"'\\u{byte:04x}'"
    return f"'{chr(byte)}'"


class _Scanner:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def fail(self, context: str) -> GoSyntaxError:
        if self.at >= len(self.raw):
            return GoSyntaxError("unexpected EOF")
        return GoSyntaxError(f"invalid character {quote_char(self.raw[self.at])} {context}")

    def peek(self) -> int:
        return self.raw[self.at] if self.at < len(self.raw) else _END

    def space(self) -> int:
        while self.peek() in _SPACE:
            self.at += 1
        return self.peek()

    def string(self) -> None:
        self.at += 1
        while True:
            match = _PLAIN.match(self.raw, self.at)
            before, self.at = self.at, match.end() if match else self.at
            if self.at - before == _RUN:  # there may be more: a long text is read in short steps
                continue
            char = self.peek()
            if char == ord('"'):
                self.at += 1
                return
            if char != ord("\\"):
                raise self.fail("in string literal")
            self.at += 1
            self.escape()

    def escape(self) -> None:
        char = self.peek()
        if char == ord("u"):
            for _ in range(4):
                self.at += 1
                if self.peek() not in _HEX:
                    raise self.fail("in \\u hexadecimal character escape")
        elif char not in _ESCAPES:
            raise self.fail("in string escape code")
        self.at += 1

    def digits(self, context: str) -> None:
        match = _DIGITS.match(self.raw, self.at)
        if match is None or match.end() == self.at:
            raise self.fail(context)
        self.at = match.end()

    def number(self) -> None:
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.peek() == ord("."):
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.peek() in frozenset(b"eE"):
            self.at += 1
            if self.peek() in frozenset(b"+-"):
                self.at += 1
            self.digits("in exponent of numeric literal")

    def literal(self, word: bytes) -> None:
        for index, expected in enumerate(word):
            if self.peek() != expected:
                name = word.decode()
                raise self.fail(f"in literal {name} (expecting {quote_char(word[index])})")
            self.at += 1

    def scalar(self) -> None:
        char = self.space()
        if char == ord('"'):
            self.string()
        elif char == ord("-") or ord("0") <= char <= ord("9"):
            self.number()
        elif char == ord("t"):
            self.literal(b"true")
        elif char == ord("f"):
            self.literal(b"false")
        elif char == ord("n"):
            self.literal(b"null")
        else:
            raise self.fail("looking for beginning of value")

    def key(self) -> None:
        if self.space() != ord('"'):
            raise self.fail("looking for beginning of object key string")
        self.string()
        if self.space() != ord(":"):
            raise self.fail("after object key")
        self.at += 1


def scan(raw: bytes, *, max_depth: int) -> int:
    """The offset just after the first value."""
    scanner = _Scanner(raw)
    open_: list[int] = []
    while True:
        char = scanner.space()
        if char in (ord("{"), ord("[")):
            open_.append(char)
            if len(open_) > max_depth:
                raise GoSyntaxError("exceeded max depth")
            scanner.at += 1
            if scanner.space() != char + 2:
                if char == ord("{"):
                    scanner.key()
                continue
        else:
            scanner.scalar()
        # A value has ended (or an empty container is about to): close what ends here, go on after a comma.
        while open_:
            char = scanner.space()
            if char == open_[-1] + 2:
                scanner.at += 1
                open_.pop()
                continue
            if char == ord(","):
                scanner.at += 1
                if open_[-1] == ord("{"):
                    scanner.key()
                break
            raise scanner.fail(
                "after object key:value pair" if open_[-1] == ord("{") else "after array element"
            )
        else:
            return scanner.at

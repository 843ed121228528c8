"""Splits a Go template into tokens: text outside the delimiters, and the words of each action inside them.

The error texts are those of Go's own lexer, because people look them up.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from llm_engine.templates.errors import TemplateSyntaxError

LEFT, RIGHT = "{{", "}}"
SPACES = " \t\r\n"


class Kind(Enum):
    TEXT = auto()
    LEFT = auto()
    RIGHT = auto()
    SPACE = auto()
    FIELD = auto()
    VARIABLE = auto()
    IDENTIFIER = auto()
    KEYWORD = auto()
    DOT = auto()
    NIL = auto()
    BOOL = auto()
    NUMBER = auto()
    CHAR = auto()
    STRING = auto()
    RAW_STRING = auto()
    PIPE = auto()
    DECLARE = auto()
    ASSIGN = auto()
    COMMA = auto()
    OPEN = auto()
    CLOSE = auto()
    EOF = auto()


KEYWORDS = frozenset(
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"]
)


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    pos: int
    line: int


class Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.line = 1

    def fail(self, message: str, line: int | None = None) -> TemplateSyntaxError:
        return TemplateSyntaxError(f"template: :{self.line if line is None else line}: {message}")

    def tokens(self) -> Iterator[Token]:
        text = self.text
        trim_next = False
        while True:
            left = text.find(LEFT, self.pos)
            end = len(text) if left < 0 else left
            chunk = text[self.pos : end]
            trim_left = left >= 0 and self._is_left_trim(left)
            shown = chunk.lstrip(SPACES) if trim_next else chunk
            if trim_left:
                shown = shown.rstrip(SPACES)
            start_line = self.line
            if trim_next:
                start_line += chunk[: len(chunk) - len(chunk.lstrip(SPACES))].count("\n")
            self.line += chunk.count("\n")
            if shown:
                yield Token(Kind.TEXT, shown, self.pos, start_line)
            if left < 0:
                yield Token(Kind.EOF, "", len(text), self.line)
                return
            self.pos = left + len(LEFT)
            if trim_left:
                skipped = 1
                while self.pos + skipped < len(text) and text[self.pos + skipped] in SPACES:
                    skipped += 1
                self.line += text.count("\n", self.pos, self.pos + skipped)
                self.pos += skipped
            if text.startswith("/*", self.pos):
                trim_next = self._comment()
                continue
            yield Token(Kind.LEFT, LEFT, left, self.line)
            trim_next = yield from self._action()

    def _is_left_trim(self, left: int) -> bool:
        at = left + len(LEFT)
        return self.text.startswith("-", at) and self.text[at + 1 : at + 2] in tuple(SPACES)

    def _right(self, at: int) -> tuple[int, bool] | None:
        """The end of a right delimiter that starts at `at`, and whether it trims."""
        if self.text[at : at + 1] in tuple(SPACES) and self.text.startswith("-" + RIGHT, at + 1):
            return at + 2 + len(RIGHT), True
        if self.text.startswith(RIGHT, at):
            return at + len(RIGHT), False
        return None

    def _comment(self) -> bool:
        close = self.text.find("*/", self.pos + 2)
        if close < 0:
            raise self.fail("unclosed comment")
        self.line += self.text.count("\n", self.pos, close)
        right = self._right(close + 2)
        if right is None:
            raise self.fail("comment ends before closing delimiter")
        self.pos = right[0]
        return right[1]

    def _action(self) -> Generator[Token, None, bool]:
        """The tokens up to and with the right delimiter; returns whether that one trims the text after it."""
        text = self.text
        depth = 0
        while True:
            right = self._right(self.pos)
            if right is not None:
                if depth:
                    raise self.fail("unclosed left paren")
                yield Token(Kind.RIGHT, RIGHT, self.pos, self.line)
                self.line += text.count("\n", self.pos, right[0])
                self.pos = right[0]
                return right[1]
            if self.pos >= len(text):
                raise self.fail("unclosed action")
            char = text[self.pos]
            if char in SPACES:
                yield self._space()
            elif char == "(":
                depth += 1
                yield self._take(Kind.OPEN, 1)
            elif char == ")":
                depth -= 1
                if depth < 0:
                    raise self.fail("unexpected right paren")
                yield self._take(Kind.CLOSE, 1)
            else:
                yield self._word(char)

    def _take(self, kind: Kind, length: int) -> Token:
        token = Token(kind, self.text[self.pos : self.pos + length], self.pos, self.line)
        self.pos += length
        self.line += token.text.count("\n")
        return token

    def _space(self) -> Token:
        end = self.pos
        while end < len(self.text) and self.text[end] in SPACES:
            # " -}}" belongs to the delimiter.
            if self._right(end) is not None and end > self.pos:
                break
            end += 1
        return self._take(Kind.SPACE, end - self.pos)

    def _word(self, char: str) -> Token:
        text = self.text
        if text.startswith(":=", self.pos):
            return self._take(Kind.DECLARE, 2)
        if char == ":":
            raise self.fail("expected :=")
        single = {"=": Kind.ASSIGN, "|": Kind.PIPE, ",": Kind.COMMA}.get(char)
        if single is not None:
            return self._take(single, 1)
        if char == '"':
            return self._quoted('"', Kind.STRING, "unterminated quoted string")
        if char == "'":
            return self._quoted("'", Kind.CHAR, "unterminated character constant")
        if char == "`":
            close = text.find("`", self.pos + 1)
            if close < 0:
                raise self.fail("unterminated raw quoted string")
            return self._take(Kind.RAW_STRING, close + 1 - self.pos)
        if char == "." and not text[self.pos + 1 : self.pos + 2].isdigit():
            return self._named(Kind.FIELD, Kind.DOT)
        if char == "$":
            return self._named(Kind.VARIABLE, Kind.VARIABLE)
        if char in "+-." or char.isdigit():
            return self._number()
        if _alphanumeric(char):
            return self._identifier()
        raise self.fail(f"unrecognized character in action: {_rune(char)}")

    def _named(self, kind: Kind, bare: Kind) -> Token:
        length = self._run(1)
        self._terminated(length)
        return self._take(kind if length > 1 else bare, length)

    def _run(self, length: int) -> int:
        while self.pos + length < len(self.text) and _alphanumeric(self.text[self.pos + length]):
            length += 1
        return length

    def _terminated(self, length: int) -> None:
        at = self.pos + length
        follow = self.text[at : at + 1]
        if follow and follow not in SPACES + ".,|:=()" and not self.text.startswith(RIGHT, at):
            raise self.fail(f"bad character {_rune(follow)}")

    def _identifier(self) -> Token:
        length = self._run(1)
        self._terminated(length)
        word = self.text[self.pos : self.pos + length]
        kind = Kind.IDENTIFIER
        if word in KEYWORDS:
            kind = Kind.KEYWORD
        elif word in ("true", "false"):
            kind = Kind.BOOL
        elif word == "nil":
            kind = Kind.NIL
        return self._take(kind, length)

    def _number(self) -> Token:
        length = 1
        while True:
            at = self.pos + length
            char = self.text[at : at + 1]
            exponent = char in ("+", "-") and self.text[at - 1 : at] in ("e", "E", "p", "P")
            if not char or not (_alphanumeric(char) or char == "." or exponent):
                break
            length += 1
        return self._take(Kind.NUMBER, length)

    def _quoted(self, quote: str, kind: Kind, problem: str) -> Token:
        at = self.pos + 1
        while at < len(self.text):
            char = self.text[at]
            if char == "\n":
                break
            if char == quote:
                return self._take(kind, at + 1 - self.pos)
            at += 2 if char == "\\" else 1
            if char == "\\" and self.text[at - 1 : at] == "\n":
                break
        raise self.fail(problem)


def _alphanumeric(char: str) -> bool:
    return char == "_" or char.isalnum()


def _rune(char: str) -> str:
    printable = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{printable}"

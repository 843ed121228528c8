"""Reading and writing Modelfiles.

The grammar is Ollama's: one instruction a line, values that may be quoted over several lines with one or
three double quotes. Errors name the line. What `render` writes, `parse` reads back to the same commands.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from llm_engine.errors import EngineError
from llm_engine.models import builtins
from llm_engine.models.parameters import DEPRECATED, InvalidParameter, from_text, is_list, nearest

INSTRUCTIONS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
    "requires",
)  # fmt: skip
ROLES = ("system", "user", "assistant")
MAX_BYTES = 16 * 1024 * 1024
_SEMVER = re.compile(r"v?\d+(\.\d+(\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)?)?")
_DROPPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
_BLANK = " \t\r\n"
_LIST = ", ".join(f'"{name}"' for name in INSTRUCTIONS[:-1]) + f', or "{INSTRUCTIONS[-1]}"'


class ModelfileError(EngineError):
    """A Modelfile that cannot be read; the text names the line."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction. `key` is the parameter's name or the message's role."""

    name: str
    value: str
    key: str = ""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Modelfile:
    commands: tuple[Command, ...]
    warnings: tuple[str, ...] = ()

    def named(self, name: str) -> list[Command]:
        return [command for command in self.commands if command.name == name]

    def values(self, name: str) -> list[str]:
        return [command.value for command in self.named(name)]

    def last(self, name: str) -> str | None:
        values = self.values(name)
        return values[-1] if values else None

    @property
    def messages(self) -> list[tuple[str, str]]:
        return [(command.key, command.value) for command in self.commands if command.name == "message"]

    @property
    def parameters(self) -> dict[str, Any]:
        """Typed values; a repeated list parameter collects, of others the last one wins."""
        found: dict[str, Any] = {}
        for command in self.commands:
            if command.name != "parameter" or command.key in DEPRECATED:
                continue
            value = from_text(command.key, command.value)
            if is_list(command.key):
                found.setdefault(command.key, []).append(value)
            else:
                found[command.key] = value
        return found


def decode(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark."""
    if len(data) > MAX_BYTES:
        raise ModelfileError(f"Modelfile: {len(data)} bytes, more than {MAX_BYTES}")
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModelfileError(f"(line {line}): not UTF-8 or UTF-16 text: byte {error.start}") from None


def parse(source: str | bytes) -> Modelfile:
    text = decode(source) if isinstance(source, bytes) else source.removeprefix("\ufeff")
    commands = tuple(_Reader(text).read())
    if not any(command.name == "from" for command in commands):
        raise ModelfileError("no FROM line", fix='add a line such as "FROM llama3.2"')
    return Modelfile(commands, tuple(_check(commands)))


class _Reader:
    """Takes the text line by line; a value goes on over lines until its quote closes."""

    def __init__(self, text: str) -> None:
        self.lines = _DROPPED.sub("", text).split("\n")
        self.at = 0

    def read(self) -> list[Command]:
        commands = []
        while self.at < len(self.lines):
            line = self.lines[self.at].lstrip(" \t\r")
            if line and not line.startswith("#"):
                commands.append(self._command(line))
            self.at += 1
        return commands

    def _command(self, line: str) -> Command:
        number = self.at + 1
        word, rest = _split(line)
        name = word.lower()
        if name not in INSTRUCTIONS:
            raise ModelfileError(f"(line {number}): command must be one of {_LIST}{_hint(name)}")
        key = ""
        if name in ("parameter", "message"):
            key, rest = _split(rest.lstrip(" \t"))
            if name == "message" and key.lower() not in ROLES:
                roles = 'must be one of "system", "user", or "assistant"'
                raise ModelfileError(f'(line {number}): message role {roles}, not "{key}"')
            key = key.lower()
        value = self._value(rest, number)
        if not value and name not in ("template", "system", "license", "message"):
            what = f"PARAMETER {key}".strip() if name == "parameter" else name.upper()
            raise ModelfileError(f"(line {number}): {what} needs a value")
        return Command(name, value, key, number)

    def _value(self, first: str, number: int) -> str:
        value = _read_value(first, self._following())
        if value is None:
            raise ModelfileError(
                f"(line {number}): unexpected EOF: the quote that opens on this line is never closed"
            )
        return value

    def _following(self) -> Iterator[str]:
        while self.at + 1 < len(self.lines):
            self.at += 1
            yield self.lines[self.at]


def _split(line: str) -> tuple[str, str]:
    found = re.match(r"([^ \t\r]*)[ \t\r]?(.*)", line, re.DOTALL)
    assert found is not None
    return found[1], found[2]


def _hint(word: str) -> str:
    close = nearest(word, INSTRUCTIONS)
    return f' (did you mean "{close}"?)' if close else ""


def _read_value(first: str, following: Iterator[str]) -> str | None:
    """A value that begins in `first`; lines are taken until its quote closes, None when it never does."""
    text = first.strip(_BLANK)
    quote = next((mark for mark in ('"""', '"') if text.startswith(mark)), "")
    if not quote:
        return text
    if len(text) >= 2 * len(quote) and text.endswith(quote):
        return text[len(quote) : -len(quote)]
    lines = [first.lstrip(_BLANK)]
    for line in following:
        lines.append(line)
        if line.rstrip(_BLANK).endswith(quote):
            return "\n".join(lines).rstrip(_BLANK)[len(quote) : -len(quote)]
    return None


def is_version(text: str) -> bool:
    return _SEMVER.fullmatch(text) is not None


def _check(commands: Sequence[Command]) -> list[str]:
    """Refuses what cannot be right; returns warnings."""
    warnings = []
    for command in commands:
        if command.name == "parameter":
            if command.key in DEPRECATED:
                warnings.append(f"warning: parameter {command.key} is deprecated")
                continue
            try:
                from_text(command.key, command.value)
            except InvalidParameter as error:
                raise ModelfileError(f"(line {command.line}): {error}") from None
        elif command.name in builtins.KNOWN and (wrong := builtins.mistake(command.name, command.value)):
            raise ModelfileError(f"(line {command.line}): {wrong}")
        elif command.name == "requires" and not is_version(command.value):
            raise ModelfileError(f"(line {command.line}): requires must be a valid semver (e.g. 0.14.0)")
    return warnings


def render(commands: Sequence[Command], heading: Sequence[str] = ()) -> str:
    """The text of a Modelfile, `heading` as comments before it."""
    lines = [f"# {line}".rstrip() for line in heading]
    if lines:
        lines.append("")
    for command in commands:
        words = [command.name.upper(), *([command.key] if command.key else []), quote(command.value)]
        lines.append(" ".join(words).rstrip(" ") if not command.value else " ".join(words))
    return "\n".join(lines) + "\n"


def quote(value: str) -> str:
    """A value as it is written: bare where that reads back, else in one quote or three."""
    if value and "\n" not in value and "\r" not in value and value == value.strip() and value[0] != '"':
        return value
    one, three = f'"{value}"', f'"""{value}"""'
    if '"' not in value or not _reads_back(three, value):
        return one if _reads_back(one, value) or not _reads_back(three, value) else three
    return three


def _reads_back(written: str, value: str) -> bool:
    lines = iter(written.split("\n"))
    return _read_value(next(lines), lines) == value and next(lines, None) is None


@lru_cache(maxsize=512)
def can_say(command: Command) -> bool:
    """Whether the grammar has a form for it: a text may close every quote, or hold what is dropped."""
    try:
        return parse(render([Command("from", "x"), command])).commands[1:] == (command,)
    except ModelfileError:
        return False


def generated_heading(name: str) -> list[str]:
    """What `show --modelfile` puts on top."""
    return [
        'Modelfile generated by "ollama show"',
        "To build a new Modelfile based on this, replace FROM with:",
        f"FROM {name}",
    ]

"""Small pieces of GBNF grammars: text up to a tag, and grammars put together without clashing names."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}|#[^\n]*|[A-Za-z][A-Za-z0-9-]*', re.DOTALL
)


def literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def renamed(grammar: str, prefix: str) -> str:
    """The same grammar with `prefix` before the name of every rule."""

    def rename(found: re.Match[str]) -> str:
        token = found[0]
        return prefix + token if token[0].isalpha() else token

    return _TOKEN.sub(rename, grammar)


def up_to(tag: str, name: str) -> str:
    """Rules for any text that ends with the first `tag`; `name` is the one to start with.

    A state for each length of the tag's beginning that was just read, as in Knuth, Morris and Pratt's
    search: so a half tag, or one begun twice, is text like any other.
    """
    falls = _falls(tag)
    lines = []
    for state in range(len(tag)):
        steps: dict[str, int] = {}
        at = state
        while True:
            steps.setdefault(tag[at], at + 1)
            if at == 0:
                break
            at = falls[at - 1]
        options = [
            f"{literal(char)}" + ("" if to == len(tag) else f" {_state(name, to)}")
            for char, to in steps.items()
        ]
        options.append(f"[^{''.join(_in_class(char) for char in steps)}] {_state(name, 0)}")
        lines.append(f"{_state(name, state)} ::= {' | '.join(options)}")
    return "\n".join(lines) + "\n"


def _state(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number}"


def _falls(tag: str) -> list[int]:
    """For each beginning of the tag, how long its longest beginning is that also ends it."""
    falls = [0] * len(tag)
    length = 0
    for at in range(1, len(tag)):
        while length and tag[at] != tag[length]:
            length = falls[length - 1]
        length += tag[at] == tag[length]
        falls[at] = length
    return falls


def _in_class(char: str) -> str:
    return "\\" + char if char in "]\\^-[" else {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, char)

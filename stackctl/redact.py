"""Keeps secrets out of everything that is shown or stored.

A `Secret` says `***` in every string form; `reveal()` is the one way out, and remembers the value, so that
`redacted()` takes it out of any later text: commands shown by -v, logs, journals, JSON. What is known for a
while only (the secret inputs of a run) is hidden by `hiding()`.

Text is redacted before it is cut or quoted, because a part of a secret cannot be told from other words; what
comes in pieces goes through a `Stream`. Where others have quoted a value already, the usual forms of it
(shell, JSON, Python, URL, the lines of a longer text) are hidden, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_known: set[str] = set()
_for_a_while: Counter[str] = Counter()
_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[-_]?key)[\w-]*[\"']?\s*[=:]\s*)(?!/run/secrets/)"
    r"(\"[^\"]*\"|'[^']*'|\S+)"
)
_ADDRESS = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@?#]*:)[^\s/@?#]+(?=@)")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")
HIDDEN = "***"
LONG_LINE = 8  # a shorter line of a longer secret is an ordinary word


class Secret:
    """A value that may be used, and never seen."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        remember(value)

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return "Secret(***)"

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a Secret cannot be pickled")


def remember(value: str) -> None:
    """From now on `redacted` hides this value. Short ones are left out: they would hide ordinary words."""
    if len(value) >= LONG_LINE:
        _known.add(value)


@contextlib.contextmanager
def hiding(values: Iterable[str]) -> Iterator[None]:
    """As `remember`, for as long as the block runs; short values, too, because somebody said so."""
    mine = [value for value in values if value.strip()]
    _for_a_while.update(mine)
    try:
        yield
    finally:
        _for_a_while.subtract(mine)


def redacted(text: str) -> str:
    return redacted_patterns(without_known(text))


def redacted_patterns(text: str) -> str:
    """What looks like a secret, though nobody has named it one."""
    text = _ADDRESS.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1{HIDDEN}", _ASSIGNMENT.sub(rf"\1{HIDDEN}", text))


def without_known(text: str) -> str:
    forms = _forms_now()
    return _pattern(forms).sub(HIDDEN, text) if forms else text


def redacted_values(value: Any) -> Any:
    """Every text in a document, before it becomes JSON: escaped, a secret would no longer be recognised, and
    what is taken out of the written form could be half of a string."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {redacted(str(key)): redacted_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_values(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return HIDDEN if without_known(str(value)) == HIDDEN else value
    return redacted(str(value))


class Stream:
    """Text that comes in pieces: a secret across their border is hidden as one within them is."""

    def __init__(self) -> None:
        self._forms = _forms_now()
        self._held = ""

    def feed(self, piece: str) -> str:
        text, at = self._held + piece, 0
        out: list[str] = []
        pattern = _pattern(self._forms) if self._forms else None
        while True:
            found = pattern.search(text, at) if pattern else None
            waits = self._may_go_on(text, at)
            if found is None or waits <= found.start():
                self._held = text[waits:]
                return "".join([*out, text[at:waits]])
            out += [text[at : found.start()], HIDDEN]
            at = found.end()

    def close(self) -> str:
        held, self._held = self._held, ""
        return _pattern(self._forms).sub(HIDDEN, held) if self._forms else held

    def _may_go_on(self, text: str, at: int) -> int:
        """Where the first form begins whose rest is not here yet."""
        longest = max(map(len, self._forms), default=0)
        for start in range(max(at, len(text) - longest + 1), len(text)):
            rest = text[start:]
            if any(len(form) > len(rest) and form.startswith(rest) for form in self._forms):
                return start
        return len(text)


def _forms_now() -> frozenset[str]:
    values = _known | {value for value, times in _for_a_while.items() if times > 0}
    return frozenset(form for value in values for form in _forms(value))


@functools.lru_cache(maxsize=256)
def _forms(value: str) -> frozenset[str]:
    """The value, and how it looks once something has quoted it."""
    from urllib.parse import quote, quote_plus  # only where there is a secret to hide

    inner = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    inner |= {shlex.quote(value).removeprefix("'").removesuffix("'"), repr(value + "\"'")[1:-4]}
    inner |= {quote(value), quote(value, safe=""), quote_plus(value), value.strip()}
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= LONG_LINE}
    return frozenset(form for form in {value, *inner, *lines} if form)


def _pattern(forms: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))

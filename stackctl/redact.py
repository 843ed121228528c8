"""Keeps secrets out of everything that is shown or stored.

A `Secret` says `***` in every string form; `reveal()` is the one way out, and remembers the value, so that
`redacted()` takes it out of any later text: commands shown by -v, logs, journals, JSON.
"""

from __future__ import annotations

import re
from typing import Any

_known: set[str] = set()
_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[-_]?key)[\w-]*[\"']?\s*[=:]\s*)(?!/run/secrets/)"
    r"(\"[^\"]*\"|'[^']*'|\S+)"
)
_ADDRESS = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@?#]*:)[^\s/@?#]+(?=@)")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")


class Secret:
    """A value that may be used, and never seen."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        remember(value)

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret(***)"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a Secret cannot be pickled")


def remember(value: str) -> None:
    """From now on `redacted` hides this value. Short ones are left out: they would hide ordinary words."""
    if len(value) >= 8:
        _known.add(value)


def redacted(text: str) -> str:
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, "***")
    text = _ADDRESS.sub(r"\1***", text)
    return _BEARER.sub(r"\1***", _ASSIGNMENT.sub(r"\1***", text))


def redacted_values(value: Any) -> Any:
    """Every text in a document, before it becomes JSON: escaped, a secret would no longer be recognised, and
    what is taken out of the written form could be half of a string."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted(str(key)): redacted_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_values(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else redacted(str(value))

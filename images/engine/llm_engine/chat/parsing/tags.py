"""Finding tags in a text that is still growing."""

from __future__ import annotations

from collections.abc import Iterable


def earliest(text: str, tags: Iterable[str], start: int = 0) -> tuple[int, str] | None:
    """Where the first tag stands, and which one; the longest wins where two begin together."""
    best: tuple[int, str] | None = None
    for tag in tags:
        at = text.find(tag, start)
        if at >= 0 and (best is None or at < best[0] or (at == best[0] and len(tag) > len(best[1]))):
            best = (at, tag)
    return best


def held(text: str, tags: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    longest = 0
    for tag in tags:
        for size in range(min(len(tag) - 1, len(text)), longest, -1):
            if text.endswith(tag[:size]):
                longest = size
                break
    return longest


MOST_HALF = 4
"""Longer beginnings of a tag are taken for one that was cut off, and not for text."""


def whole_tags(text: str, tags: Iterable[str]) -> str:
    """The end of an answer without half a tag."""
    half = held(text, tags)
    cut = half > MOST_HALF and text[-half] in "<["
    return text[:-half] if cut else text


def could_grow(text: str, found: tuple[int, str], tags: Iterable[str]) -> bool:
    """Whether the tag found at the end of `text` may yet turn out to be a longer one."""
    at, tag = found
    rest = text[at:]
    return any(len(other) > len(tag) and other.startswith(rest) and other != rest for other in tags)

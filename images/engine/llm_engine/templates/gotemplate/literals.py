"""Go's number and character constants as Python numbers."""

from __future__ import annotations

import re

from llm_engine.templates.gotemplate.quoting import go_quote, go_unquote

_DECIMAL = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
_PREFIXED = re.compile(r"[+-]?0(?:[xX](_?[0-9a-fA-F])+|[bB](_?[01])+|[oO]?(_?[0-7])+)")
_FLOAT = re.compile(r"[+-]?([0-9](_?[0-9])*)?\.?([0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F_]*\.?[0-9a-fA-F_]*[pP][+-]?[0-9]+")
MAX_DIGITS = 100


def number_value(source: str) -> int | float:
    """Raises ValueError with Go's text."""
    bad = ValueError(f"bad number syntax: {go_quote(source)}")
    if len(source) > MAX_DIGITS:
        raise bad
    if _DECIMAL.fullmatch(source):
        return _checked(int(source.replace("_", "")), source)
    if _PREFIXED.fullmatch(source):
        plain = source.replace("_", "")
        sign = -1 if plain.startswith("-") else 1
        plain = plain.lstrip("+-")
        # 017 is octal in Go.
        return _checked(sign * int(plain, 8 if plain[1].isdigit() else 0), source)
    if _HEX_FLOAT.fullmatch(source):
        return _integral(float.fromhex(source.replace("_", "")))
    if source.lstrip("+-").isdigit():
        raise ValueError(f"integer overflow: {go_quote(source)}")
    if _FLOAT.fullmatch(source) and any(c.isdigit() for c in source):
        try:
            return _integral(float(source.replace("_", "")))
        except ValueError:
            raise bad from None
    raise bad


def _checked(value: int, source: str) -> int:
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"integer overflow: {go_quote(source)}")
    return value


def _integral(value: float) -> float:
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"bad number syntax: {go_quote(str(value))}")
    return value


def char_value(source: str) -> int:
    try:
        text = go_unquote(source)
    except ValueError:
        text = ""
    if len(text) != 1:
        raise ValueError(f"malformed character constant: {source}")
    return ord(text)

"""`eq` and its five sisters, with Go's rule that values of different basic kinds do not compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_engine.templates.gotemplate.values import GoStruct, kind, type_name


class CompareError(Exception):
    """Two values that Go does not compare."""


_BAD_TYPE = "invalid type for comparison"
_INCOMPATIBLE = "incompatible types for comparison"


def _equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    if kind(left) != kind(right):
        raise CompareError(_INCOMPATIBLE)
    if kind(left):
        return bool(left == right)
    if isinstance(left, GoStruct) and isinstance(right, GoStruct):
        return left is right
    raise CompareError(f"non-comparable types {type_name(left)}, {type_name(right)}")


def eq(args: Sequence[Any]) -> bool:
    if len(args) < 2:
        raise CompareError("missing argument for comparison")
    return any(_equal(args[0], other) for other in args[1:])


def ne(args: Sequence[Any]) -> bool:
    return not _equal(args[0], args[1])


def _less(left: Any, right: Any) -> bool:
    for value in (left, right):
        if not kind(value):
            raise CompareError(_BAD_TYPE)
    if kind(left) != kind(right):
        raise CompareError(_INCOMPATIBLE)
    if kind(left) == "bool":
        raise CompareError(_BAD_TYPE)
    if isinstance(left, str):
        # Go compares bytes; UTF-8 keeps the order of code points, which is Python's.
        return bool(left < right)
    return bool(left < right)


def lt(args: Sequence[Any]) -> bool:
    return _less(args[0], args[1])


def le(args: Sequence[Any]) -> bool:
    return _less(args[0], args[1]) or _equal(args[0], args[1])


def gt(args: Sequence[Any]) -> bool:
    return not le(args)


def ge(args: Sequence[Any]) -> bool:
    return not _less(args[0], args[1])

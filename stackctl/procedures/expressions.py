"""`${{ inputs.model }}` in arguments and the small language of `when`.

A text that is one placeholder keeps the value's type. `when` knows names, literals, comparisons, `and`,
`or`, `not` and `in`: nothing that could call anything.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from stackctl.errors import ConfigError

PLACEHOLDER = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_PATH = re.compile(r"^[a-z][a-z0-9_-]*(\.[A-Za-z0-9_-]+)+$")


class ExpressionError(ConfigError):
    """A placeholder or a `when` that cannot be evaluated."""


def lookup(path: str, scope: Mapping[str, Any]) -> Any:
    if not _PATH.match(path):
        raise ExpressionError(
            f"${{{{ {path} }}}}: expected a name such as inputs.model or steps.snapshot.path"
        )
    value: Any = scope
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ExpressionError(f"${{{{ {path} }}}}: there is no {part!r} here")
        value = value[part]
    return value


def fill(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value` with every placeholder replaced, to any depth."""
    if isinstance(value, str):
        whole = PLACEHOLDER.fullmatch(value.strip())
        if whole:
            return lookup(whole[1], scope)
        return _replace(value, scope, _text)
    if isinstance(value, Mapping):
        return {key: fill(item, scope) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(item, scope) for item in value]
    return value


def fill_shell(command: str, scope: Mapping[str, Any]) -> str:
    """As `fill`, for a shell line: every value is quoted, so that no value can become shell code."""
    return _replace(command, scope, lambda value: shlex.quote(_text(value)))


def _replace(text: str, scope: Mapping[str, Any], form: Callable[[Any], str]) -> str:
    return PLACEHOLDER.sub(lambda match: form(lookup(match[1], scope)), text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return str(value)


def references(value: Any) -> list[str]:
    """Every placeholder path in `value`, for lint."""
    if isinstance(value, str):
        return [match[1] for match in PLACEHOLDER.finditer(value)]
    if isinstance(value, Mapping):
        return [path for item in value.values() for path in references(item)]
    if isinstance(value, (list, tuple)):
        return [path for item in value for path in references(item)]
    return []


def when(source: str, scope: Mapping[str, Any]) -> bool:
    try:
        return bool(_evaluate(when_tree(source).body, scope))
    except TypeError as error:
        raise ExpressionError(f"when: {source}: {error}") from None


def when_tree(source: str) -> ast.Expression:
    try:
        return ast.parse(source.strip(), mode="eval")
    except SyntaxError as error:
        raise ExpressionError(f"when: {source}: {error.msg}") from None


def when_references(source: str) -> list[str]:
    found = []
    for node in ast.walk(when_tree(source)):
        if not isinstance(node, _ALLOWED):
            raise ExpressionError(f"when: {source}: only names, values, comparisons, and/or/not are allowed")
        if isinstance(node, ast.Attribute):
            found.append(_dotted(node, source))
    return [path for path in found if not any(other.startswith(path + ".") for other in found)]


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: bool(a == b),
    ast.NotEq: lambda a, b: bool(a != b),
    ast.Lt: lambda a, b: bool(a < b),
    ast.LtE: lambda a, b: bool(a <= b),
    ast.Gt: lambda a, b: bool(a > b),
    ast.GtE: lambda a, b: bool(a >= b),
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


_ALLOWED = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute,
    ast.UnaryOp, ast.Not, ast.BoolOp, ast.boolop, ast.Compare, *_COMPARE,
)  # fmt: skip


def _evaluate(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    if isinstance(node, ast.Attribute):
        return lookup(_dotted(node, ""), scope)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _evaluate(node.operand, scope)
    if isinstance(node, ast.BoolOp):
        wanted = isinstance(node.op, ast.Or)
        result: Any = not wanted
        for part in node.values:
            result = _evaluate(part, scope)
            if bool(result) is wanted:
                return result
        return result
    if isinstance(node, ast.Compare):
        left = _evaluate(node.left, scope)
        for operator, right_node in zip(node.ops, node.comparators, strict=True):
            compare = _COMPARE.get(type(operator))
            right = _evaluate(right_node, scope)
            if compare is None or not compare(left, right):
                return False
            left = right
        return True
    raise ExpressionError(
        f"when: {ast.unparse(node)}: only names, values, comparisons, and/or/not are allowed"
    )


def _dotted(node: ast.expr, source: str) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, source)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ExpressionError(f"when: {source or ast.unparse(node)}: only names such as inputs.model are allowed")

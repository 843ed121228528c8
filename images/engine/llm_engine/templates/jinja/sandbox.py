"""The Jinja environment for templates from strangers.

Jinja's own sandbox keeps a template away from Python's insides; this adds the limits that it lacks: every
call, loop turn, operation and text is counted against a budget, and goes through `bounds` before it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from llm_engine.templates.errors import TemplateLimitError, TemplateRefused
from llm_engine.templates.jinja import bounds
from llm_engine.templates.jinja.bounds import size
from llm_engine.templates.limits import Budget

_budget: ContextVar[Budget] = ContextVar("template_budget")
_now: ContextVar[datetime] = ContextVar("template_now")


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; at inference it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own contract

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


_COMPARING = (
    *("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge", "<", "lt", "lessthan"),
    *("<=", "le", "in", "divisibleby"),
)


class Sandbox(SandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%", "//", "/", "-"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            extensions=[loopcontrols, _Generation],
            cache_size=0,
        )
        self.filters["tojson"] = _tojson
        self.filters = {name: _bounded(self.filters[name], name) for name in sorted(bounds.FILTERS)}
        for name in _COMPARING:
            self.tests[name] = _comparing(self.tests[name])
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda layout: _now.get().strftime(str(layout))
        self.globals["_counted"] = _counted
        self.globals["_concat"] = _concat
        self.globals["_made"] = _made
        self.globals["_weighed"] = _weighed
        self.globals["_shown"] = _shown
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _instrument(tree)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.step()
        owner = getattr(obj, "__self__", None)
        args = tuple(_list(arg) for arg in args)
        bounds.before_method(getattr(obj, "__name__", ""), owner, (*args, *kwargs.values()), budget)
        result = super().call(context, obj, *args, **kwargs)
        # A text that is given back as it was costs nothing, and neither does one that is only handed on.
        return result if result is owner or isinstance(owner, list | dict) else bounds.made(result, budget)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja's safe `str.format`, with bounded widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        layout = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            values = [*args, *kwargs.values()]
            if value.__name__ == "format_map":
                values = [item for arg in args if isinstance(arg, dict) for item in arg.values()]
            bounds.before_format(layout, "{", values, _budget.get())
            return wrapped(*args, **kwargs)

        return bounded

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _budget.get().step()
        if operator == "*":
            longer, count = (left, right) if size(left) else (right, left)
            if size(longer) and isinstance(count, int) and size(longer) * count > bounds.MAX_LIST:
                raise TemplateLimitError("the template repeats a value too often")
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**32):
            raise TemplateLimitError("the template computes too large a power")
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and numbers and left.bit_length() + right.bit_length() > 4096:
            raise TemplateLimitError("the template computes too large a number")
        if operator == "%" and isinstance(left, str):
            values = (
                right if isinstance(right, tuple) else right.values() if isinstance(right, dict) else [right]
            )
            bounds.before_format(left, "%", values, _budget.get())
        return bounds.made(super().call_binop(context, operator, left, right), _budget.get())

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        own = not attr.startswith("_") and bounds.may_call(obj, attr)
        return own and bool(super().is_safe_attribute(obj, attr, value))


def _instrument(tree: nodes.Template) -> nodes.Template:
    """Puts a check around what Jinja compiles to plain Python, past the hooks of its sandbox."""
    for loop in tree.find_all(nodes.For):
        loop.iter = _call("_counted", loop.iter)
    for parent in list(tree.find_all(nodes.Node)):
        for field_name, value in parent.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(parent, field_name, _checked(parent, value))
            elif isinstance(value, list):
                value[:] = [_checked(parent, v) if isinstance(v, nodes.Node) else v for v in value]
    return tree


def _checked(parent: nodes.Node, node: nodes.Node) -> nodes.Node:
    if isinstance(node, nodes.Concat):
        node = _call("_concat", *node.nodes)
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = _call("_made", node)
    elif isinstance(node, nodes.Tuple) and node.ctx == "load":
        node = _call("_weighed", node)  # it may become a key, and a key is walked through to be found
    if isinstance(parent, nodes.Compare | nodes.Operand) and not isinstance(
        node, nodes.Const | nodes.Operand
    ):
        return _call("_weighed", node)
    if isinstance(parent, nodes.Output):
        return _call("_shown", nodes.Const(node.data) if isinstance(node, nodes.TemplateData) else node)
    return node


def _call(name: str, *args: nodes.Node) -> nodes.Node:
    # Line numbers stay those of the first argument, so that error texts point into the template.
    call: nodes.Node = nodes.Call(nodes.Name(name, "load"), list(args), [], None, None)
    return call.set_lineno(args[0].lineno, override=True) if args else call


def _counted(items: Any) -> Any:
    """The items of a loop, each paid for."""
    if isinstance(items, str | list | tuple | dict) or items is None or not isinstance(items, Iterable):
        _budget.get().step(size(items))
        return items
    return bounds.paying(items, _budget.get())


def _concat(*parts: Any) -> str:
    return str(bounds.check("".join(str(_shown(part)) for part in parts)))


def _made(value: Any) -> Any:
    return bounds.made(value, _budget.get())


def _weighed(value: Any) -> Any:
    bounds.weigh(value, _budget.get())
    return value


def _shown(value: Any) -> Any:
    """What is written, also into a variable or by a macro."""
    budget = _budget.get()
    budget.step()
    budget.text(bounds.weigh(value, budget))
    return value


def _list(value: Any) -> Any:
    """What filters such as `map` give is made step by step: made here, where each step is paid for."""
    return list(bounds.paying(value, _budget.get())) if isinstance(value, Iterator) else value


def _bounded(filter_: Callable[..., Any], name: str) -> Callable[..., Any]:
    kind = getattr(filter_, "jinja_pass_arg", None)
    first = 1 if kind else 0

    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.step()
        args = (*args[:first], *(_list(arg) for arg in args[first:]))
        bounds.before_filter(name, args[first:], kwargs, budget)
        result = filter_(*args, **kwargs)
        given = (*args, *kwargs.values())
        return result if any(result is arg for arg in given) else bounds.made(result, budget)

    if kind:
        bounded.jinja_pass_arg = kind  # type: ignore[attr-defined]
    return bounded


def _comparing(test: Any) -> Callable[..., Any]:
    def bounded(*args: Any) -> Any:
        for arg in args:
            _weighed(arg)
        return test(*args)

    return bounded


def _raise_exception(message: Any = "") -> None:
    raise TemplateRefused(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML, which models were not trained on."""
    if indent is not None and not 0 <= indent <= 64:
        raise TemplateLimitError("tojson was given too great an indent")
    try:
        text = json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
            default=_plain,
        )
    except TypeError as error:
        raise TemplateRefused(f"tojson: {error}") from None
    return text


def _plain(value: Any) -> Any:
    """What filters such as `map` give is an iterator; JSON wants the list."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def in_budget(budget: Budget, now: datetime, work: Callable[[], str]) -> str:
    """Run `work` with its own budget and clock."""
    budget_token, now_token = _budget.set(budget), _now.set(now)
    try:
        return work()
    finally:
        _budget.reset(budget_token)
        _now.reset(now_token)

"""The Jinja environment for templates from strangers.

Jinja's own sandbox keeps a template away from Python's insides; this adds the limits that it
lacks: every call, loop turn and operation is counted against a budget, and no string can grow beyond it.
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
from llm_engine.templates.limits import Budget

MAX_STRING = 32 * 1024 * 1024
MAX_LIST = 1_000_000

_budget: ContextVar[Budget] = ContextVar("template_budget")
_now: ContextVar[datetime] = ContextVar("template_now")


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; at inference it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own contract

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | bytes | dict) else 0


def _check(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_STRING:
        raise TemplateLimitError(f"the template made a text of more than {MAX_STRING} characters")
    if isinstance(value, list | tuple) and len(value) > MAX_LIST:
        raise TemplateLimitError(f"the template made a list of more than {MAX_LIST} items")
    return value


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
        # A filter that pads or repeats by a number is bounded before it runs.
        for name in ("center", "indent", "replace", "format", "join", "batch", "slice", "wordwrap"):
            self.filters[name] = _bounded(self.filters[name], name)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda layout: _now.get().strftime(str(layout))
        self.globals["_counted"] = _counted
        self.globals["_concat"] = _concat
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _instrument(tree)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _budget.get().step()
        method = getattr(obj, "__name__", "")
        if isinstance(getattr(obj, "__self__", None), str):
            _bound_call(method, obj.__self__, args)
        return _check(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja's safe `str.format`, with bounded widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        layout = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            _bounded_format(layout)
            if any(isinstance(a, int) and abs(a) > 100_000 for a in (*args, *kwargs.values())):
                raise TemplateLimitError("the template formats too great a number")
            return wrapped(*args, **kwargs)

        return bounded

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _budget.get().step()
        if operator == "*":
            longer, count = (left, right) if _size(left) else (right, left)
            if _size(longer) and isinstance(count, int) and _size(longer) * count > MAX_LIST:
                raise TemplateLimitError("the template repeats a value too often")
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**32):
            raise TemplateLimitError("the template computes too large a power")
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and numbers and left.bit_length() + right.bit_length() > 4096:
            raise TemplateLimitError("the template computes too large a number")
        if operator == "%" and isinstance(left, str):
            _bounded_format(left)
        result = _check(super().call_binop(context, operator, left, right))
        _budget.get().text(len(result) if isinstance(result, str) else 0)
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not attr.startswith("_") and bool(super().is_safe_attribute(obj, attr, value))


def _instrument(tree: nodes.Template) -> nodes.Template:
    for loop in tree.find_all(nodes.For):
        loop.iter = _call("_counted", loop.iter)
    for parent in list(tree.find_all(nodes.Node)):
        for field_name, value in parent.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(parent, field_name, _call("_concat", *value.nodes))
            elif isinstance(value, list):
                value[:] = [_call("_concat", *v.nodes) if isinstance(v, nodes.Concat) else v for v in value]
    return tree


def _call(name: str, *args: nodes.Node) -> nodes.Node:
    # Line numbers stay those of the first argument, so that error texts point into the template.
    call: nodes.Node = nodes.Call(nodes.Name(name, "load"), list(args), [], None, None)
    return call.set_lineno(args[0].lineno, override=True) if args else call


def _counted(items: Any) -> Any:
    """The items of a loop, each paid for."""
    if isinstance(items, str | list | tuple | dict) or items is None or not isinstance(items, Iterable):
        _budget.get().step(_size(items))
        return items
    return _paying(items)


def _paying(items: Iterable[Any]) -> Iterator[Any]:
    budget = _budget.get()
    for item in items:
        budget.step()
        yield item


def _concat(*parts: Any) -> str:
    texts = [str(part) for part in parts]
    budget = _budget.get()
    budget.step()
    budget.text(sum(map(len, texts)))
    return str(_check("".join(texts)))


def _bound_call(method: str, text: str, args: tuple[Any, ...]) -> None:
    """Refuse a string method whose result would be too large, before it is made."""
    need = 0
    if method in ("ljust", "rjust", "center", "zfill") and args and isinstance(args[0], int):
        need = args[0]
    elif method == "replace" and len(args) > 1 and isinstance(args[1], str):
        need = (len(text) // max(1, _size(args[0])) + 1) * len(args[1])
    elif method == "expandtabs" and args and isinstance(args[0], int):
        need = text.count("\t") * args[0]
    elif method == "join" and args and isinstance(args[0], list | tuple):
        need = len(text) * len(args[0]) + sum(_size(item) for item in args[0])
    if need > MAX_STRING:
        raise TemplateLimitError(f"the template made a text of more than {MAX_STRING} characters")


def _bounded_format(layout: str) -> None:
    digits = "".join(c if c.isdigit() else " " for c in layout).split()
    if any(len(number) > 5 for number in digits) or "*" in layout:
        raise TemplateLimitError("the template formats to too great a width")


def _bounded(filter_: Callable[..., Any], name: str) -> Callable[..., Any]:
    passes = {key: getattr(filter_, key) for key in ("jinja_pass_arg",) if hasattr(filter_, key)}

    def bounded(*args: Any, **kwargs: Any) -> Any:
        _budget.get().step()
        given = [*args, *kwargs.values()]
        numbers = [a for a in given if isinstance(a, int) and not isinstance(a, bool)]
        if any(abs(number) > 100_000 for number in numbers):
            raise TemplateLimitError(f"the filter {name} was given too great a number")
        texts = [a for a in given if isinstance(a, str)]
        if name == "replace" and len(texts) > 2:
            _bound_call("replace", texts[0], tuple(texts[1:]))
        if name == "join" and texts:
            items = next((a for a in given if isinstance(a, list | tuple)), ())
            _bound_call("join", texts[-1], (items,))
        if name == "indent" and texts and numbers:
            _bound_call("replace", texts[0], ("\n", " " * numbers[0]))
        if name == "format" and texts:
            _bounded_format(texts[0])
        return _check(filter_(*args, **kwargs))

    for key, value in passes.items():
        setattr(bounded, key, value)
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
    _budget.get().text(len(text))
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

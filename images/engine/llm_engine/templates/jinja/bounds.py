"""What a stranger's Jinja template may call, and how much one call may make.

One call into Python runs to its end whatever the budget says, so its cost is found before it is made: only
methods and filters on these lists exist, and what can outgrow its arguments is measured first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_engine.templates.errors import TemplateLimitError
from llm_engine.templates.limits import Budget

MAX_STRING = 32 * 1024 * 1024
MAX_LIST = 1_000_000
MAX_NUMBER = 100_000
MAX_DIGITS = 15
MAX_WRAPPED = 10_000
MAX_NESTED_TEXT = 8 * 1024 * 1024
"""Characters in a list or dict that is written out; quoting can make them six times as many."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS: Mapping[type, frozenset[str]] = {
    str: _words(
        "capitalize casefold center count endswith expandtabs find format format_map index isalnum "
        "isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
        "isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust "
        "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
    ),
    list: _words("append clear copy count extend index insert pop remove reverse sort"),
    dict: _words("clear copy get items keys pop popitem setdefault update values"),
    tuple: frozenset(("count", "index")),
    float: frozenset(("is_integer",)),
    int: frozenset(),
    bytes: frozenset(),
    bytearray: frozenset(),
}
FILTERS = _words(
    "abs attr batch capitalize center count d default dictsort e escape first float forceescape "
    "format groupby indent int items join last length list lower map max min random reject rejectattr "
    "replace reverse round safe select selectattr slice sort string sum title tojson trim truncate "
    "unique upper urlencode wordcount wordwrap"
)
# These look at no more than the outermost list, so that a long conversation is not measured again and again.
_SHALLOW = _words(
    "attr batch count d default first items last length list map random reject rejectattr reverse "
    "select selectattr slice"
)
# These take a text apart into its characters.
_TAKES_APART = _words(
    "batch dictsort groupby join list map max min random reject rejectattr select selectattr slice "
    "sort sum unique"
)


def may_call(obj: object, attribute: str) -> bool:
    """Whether a method of a plain value is on the list; other objects follow Jinja's own rules."""
    for kind, names in METHODS.items():
        if isinstance(obj, kind):
            return attribute in names
    return True


def size(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | bytes | dict | range) else 0


def check(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_STRING:
        raise _text_too_long()
    if isinstance(value, list | tuple) and len(value) > MAX_LIST:
        raise TemplateLimitError(f"the template made a list of more than {MAX_LIST} items")
    return value


def made(value: Any, budget: Budget) -> Any:
    """Accounts for a new value: also what is kept, not written, fills memory."""
    if isinstance(value, str):
        budget.text(len(value))
    elif isinstance(value, list | tuple | dict):
        budget.step(len(value) // 16)
    return check(value)


def weigh(value: object, budget: Budget) -> int:
    """The characters that `value` has when it is written out, to the innermost; refused when too many.

    A value that is in a list twice counts twice, as it does for whoever writes or compares it.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 8
    weight = items = 0
    open_: list[Iterator[Any]] = [_inside(value)]
    while open_:
        for item in open_[-1]:
            items += 1
            if isinstance(item, str):
                weight += len(item)
            elif isinstance(item, list | tuple | dict):
                open_.append(_inside(item))
                break
            else:
                weight += 8
        else:
            open_.pop()
        if items > MAX_LIST or weight > MAX_NESTED_TEXT or len(open_) > 1000:
            raise TemplateLimitError("the template uses too large a list or dict at once")
    budget.step(items // 64)
    return weight + 4 * items


def _inside(value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> Iterator[Any]:
    return iter((*value.keys(), *value.values())) if isinstance(value, dict) else iter(value)


def paying(items: Iterable[Any], budget: Budget) -> Iterator[Any]:
    for item in items:
        budget.step()
        yield item


def before_method(name: str, owner: object, args: Sequence[Any], budget: Budget) -> None:
    """Refuses the call of a method whose result would be too large."""
    if isinstance(owner, str):
        budget.step(len(owner) // 4096)
        _text(_text_method(name, owner, args, budget))
    elif isinstance(owner, list):
        if name == "extend" and len(owner) + sum(map(size, args)) > MAX_LIST:
            raise TemplateLimitError(f"the template made a list of more than {MAX_LIST} items")
        if name in ("sort", "index", "count", "remove"):
            weigh(owner, budget)
            for arg in args:
                weigh(arg, budget)
        budget.step(len(owner) // 64)
    elif isinstance(owner, dict):
        budget.step((len(owner) if name in ("copy", "update") else 0) // 16 + sum(map(size, args)) // 16)


def _text_method(name: str, text: str, args: Sequence[Any], budget: Budget) -> int:
    """The characters that a method of `text` would make."""
    numbers = [abs(arg) for arg in args if isinstance(arg, int)]
    if name in ("ljust", "rjust", "center", "zfill"):
        return max(numbers, default=0)
    if name == "expandtabs":
        return len(text) + text.count("\t") * max(numbers, default=8)
    if name == "replace" and len(args) > 1:
        return len(text) + text.count(str(args[0])) * size(args[1])
    if name == "join" and args:
        return len(text) * size(args[0]) + weigh(args[0], budget)
    if name in ("split", "rsplit", "splitlines"):
        separator = next((arg for arg in args if isinstance(arg, str) and arg), None)
        pieces = text.count(separator) if separator and name != "splitlines" else len(text) // 2
        if pieces > MAX_LIST:
            raise TemplateLimitError(f"the template made a list of more than {MAX_LIST} items")
    return len(text)


def before_format(layout: str, mark: str, values: Iterable[Any], budget: Budget) -> None:
    """Refuses a formatting whose fields are too wide, or whose values are written too often."""
    widths = [int(number[:6]) for number in "".join(c if c in "0123456789" else " " for c in layout).split()]
    if max(widths, default=0) >= MAX_NUMBER or (mark == "%" and "*" in layout):
        raise TemplateLimitError("the template formats to too great a width")
    values = list(values)
    if any(isinstance(value, int) and abs(value) > MAX_NUMBER for value in values) and ":{" in layout:
        raise TemplateLimitError("the template formats too great a number")
    each = max((weigh(value, budget) for value in values), default=0) + max(widths, default=0)
    if ":{" in layout:
        each += max((abs(value) for value in values if isinstance(value, int)), default=0)
    _text(len(layout) + layout.count(mark) * each)


def before_filter(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], budget: Budget) -> None:
    """Refuses the call of a filter that would take or make too much; `args[0]` is what is filtered."""
    value = args[0] if args else None
    given = [*args[1:], *kwargs.values()]
    numbers = [abs(arg) for arg in given if isinstance(arg, int | float) and not isinstance(arg, bool)]
    if any(number > (MAX_DIGITS if name == "round" else MAX_NUMBER) for number in numbers) and name not in (
        *("default", "d"),
        *(
            "map",
            "select",
            "reject",
            "selectattr",
            "rejectattr",
        ),  # they hand theirs to another filter or test
    ):
        raise TemplateLimitError(f"the filter {name} was given too great a number")
    if name in _TAKES_APART and isinstance(value, str) and len(value) > MAX_LIST:
        raise TemplateLimitError(f"the template made a list of more than {MAX_LIST} items")
    weight = size(value) // 16 if name in _SHALLOW else weigh(value, budget)
    budget.step(weight // 4096)
    # An argument that is no text is written out as one.
    longest = max(
        (weigh(arg, budget) for arg in given if isinstance(arg, str | list | tuple | dict)), default=0
    )
    if name == "replace" and len(given) > 1:
        _text(weight + str(value).count(str(given[0])) * longest)
    elif name == "join" or name in _TAKES_APART:
        # So are a separator, the name of an attribute and what stands in for it: once for each item.
        _text((weight if name == "join" else 0) + size(value) * longest)
    elif name == "indent":
        each = max(longest, *(int(number) for number in numbers), 4)
        _text(weight + (str(value).count("\n") + 1) * each)
    elif name == "format":
        before_format(str(value), "%", given, budget)
    elif name == "wordwrap" and weight > MAX_WRAPPED:
        raise TemplateLimitError(f"the filter wordwrap was given more than {MAX_WRAPPED} characters")
    elif name == "int" and weight > MAX_WRAPPED:
        raise TemplateLimitError("the filter int was given too long a text")
    elif name == "sum" and any(isinstance(arg, list | tuple) for arg in given):
        raise TemplateLimitError("the filter sum adds numbers, not lists")


def _text(length: int) -> None:
    if length > MAX_STRING:
        raise _text_too_long()


def _text_too_long() -> TemplateLimitError:
    return TemplateLimitError(f"the template made a text of more than {MAX_STRING} characters")

"""`printf`: Go's verbs, flags, widths, precisions, argument indexes and in-text error marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llm_engine.templates.errors import TemplateLimitError
from llm_engine.templates.gotemplate.printing import go_float, go_json, show, sorted_items
from llm_engine.templates.gotemplate.quoting import go_quote
from llm_engine.templates.gotemplate.values import GoStruct, JsonList, JsonMap, type_name

_DIRECTIVE = re.compile(
    r"%(?P<flags>[-+# 0]*)(?:\[(?P<windex>\d+)\])?(?P<width>\*|\d+)?"
    r"(?:\.(?:\[(?P<pindex>\d+)\])?(?P<precision>\*|\d+)?(?P<dot>))?(?:\[(?P<index>\d+)\])?(?P<verb>.)?",
    re.DOTALL,
)
MAX_WIDTH = 10_000


def printf(template: str, args: Sequence[Any]) -> str:
    out: list[str] = []
    at, used, reordered = 0, 0, False
    while True:
        percent = template.find("%", at)
        if percent < 0:
            out.append(template[at:])
            break
        out.append(template[at:percent])
        found = _DIRECTIVE.match(template, percent)
        assert found is not None
        at = found.end()
        verb = found["verb"]
        if verb is None:
            out.append("%!(NOVERB)")
            break
        if verb == "%":
            out.append("%")
            continue
        flags = found["flags"]
        if found["windex"]:
            used, reordered = int(found["windex"]) - 1, True
        width, used, bad_width = _number(found["width"], args, used)
        out.append("%!(BADWIDTH)" if bad_width else "")
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        if found["pindex"]:
            used, reordered = int(found["pindex"]) - 1, True
        precision, used, bad_precision = _number(found["precision"], args, used)
        out.append("%!(BADPREC)" if bad_precision else "")
        if found["dot"] is not None and precision is None:
            precision = 0
        if found["index"]:
            used, reordered = int(found["index"]) - 1, True
        if not 0 <= used < len(args):
            bad = found["index"] or found["windex"]
            out.append(f"%!{verb}(BADINDEX)" if bad else f"%!{verb}(MISSING)")
            continue
        out.append(_format(verb, flags, width, precision, args[used]))
        used += 1
    if not reordered and used < len(args):
        extra = ", ".join("<nil>" if a is None else f"{type_name(a)}={show(a)}" for a in args[used:])
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _number(text: str | None, args: Sequence[Any], used: int) -> tuple[int | None, int, bool]:
    """A width or precision: (value, next argument, whether a `*` had no usable argument)."""
    if text is None:
        return None, used, False
    if text == "*":
        if used >= len(args) or not isinstance(args[used], int) or isinstance(args[used], bool):
            return None, used + (used < len(args)), True
        value = int(args[used])
        used += 1
    else:
        value = int(text) if len(text) < 8 else MAX_WIDTH + 1
    if abs(value) > MAX_WIDTH:
        raise TemplateLimitError(f"printf: a width or precision of more than {MAX_WIDTH}")
    return value, used, False


def _format(verb: str, flags: str, width: int | None, precision: int | None, value: Any) -> str:
    text, numeric = _verb(verb, flags, precision, value)
    if width is None:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and (numeric or verb in "sqv"):
        sign = text[0] if numeric and text[:1] in ("-", "+", " ") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _verb(verb: str, flags: str, precision: int | None, value: Any) -> tuple[str, bool]:
    """The text of one value, and whether it is a number (which decides where zeros go)."""
    if verb == "T":
        return type_name(value), False
    if value is None:
        return ("<nil>", False) if verb == "v" else (f"%!{verb}(<nil>)", False)
    if verb == "v":
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if "#" in flags:
            return go_syntax(value), numeric
        if "+" in flags and isinstance(value, GoStruct) and not value.prints_json:
            return "{" + " ".join(f"{k}:{show(v, 1)}" for k, v in value.fields.items()) + "}", False
        if isinstance(value, str):
            return value[:precision], False
        return (_sign(flags, show(value)) if numeric else show(value)), numeric
    if isinstance(value, bool):
        return (show(value), False) if verb == "t" else (_bad(verb, value), False)
    if isinstance(value, int):
        return _integer(verb, flags, precision, value)
    if isinstance(value, float):
        return _float(verb, flags, precision, value)
    if isinstance(value, str) or (isinstance(value, GoStruct) and value.prints_json):
        return _string(verb, flags, precision, show(value)), False
    if isinstance(value, JsonMap | JsonList) and verb in "sqxX":
        return _string(verb, flags, precision, go_json(value)), False
    if isinstance(value, dict):
        pairs = (f"{_verb(verb, flags, precision, k)[0]}:{_verb(verb, flags, precision, v)[0]}"
                 for k, v in sorted_items(value))  # fmt: skip
        return "map[" + " ".join(pairs) + "]", False
    if isinstance(value, list | tuple):
        return "[" + " ".join(_verb(verb, flags, precision, v)[0] for v in value) + "]", False
    if isinstance(value, GoStruct):
        return "{" + " ".join(_verb(verb, flags, precision, v)[0] for v in value.fields.values()) + "}", False
    return _bad(verb, value), False


def _bad(verb: str, value: Any) -> str:
    return f"%!{verb}({type_name(value)}={show(value)})"


def _sign(flags: str, text: str) -> str:
    if text.startswith(("-", "+")):
        return text
    return "+" + text if "+" in flags else " " + text if " " in flags else text


def _integer(verb: str, flags: str, precision: int | None, value: int) -> tuple[str, bool]:
    prefix = "#" in flags
    if verb in "dbxXoO":
        code = {"d": "d", "b": "b", "x": "x", "X": "X", "o": "o", "O": "o"}[verb]
        digits = format(abs(value), code).rjust(precision or 0, "0")
        if precision == 0 and value == 0:
            digits = ""
        lead = {"x": "0x", "X": "0X", "b": "0b", "o": "0"}.get(verb, "") if prefix else ""
        lead = "0o" if verb == "O" else lead
        return _sign(flags, ("-" if value < 0 else "") + lead + digits), True
    if verb in "cqU" and value >= 0:
        char = chr(value) if value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "\ufffd"
        if verb == "c":
            return char, False
        if verb == "q":
            return go_quote(char, "'", "+" in flags), False
        return f"U+{value:04X}" + (f" '{char}'" if prefix else ""), False
    return _bad(verb, value), False


def _float(verb: str, flags: str, precision: int | None, value: float) -> tuple[str, bool]:
    if verb in "eEfFgG":
        if verb in "gG" and precision is None:
            text = go_float(value)
        else:
            code = "f" if verb == "F" else verb
            text = format(value, f".{6 if precision is None else precision}{code}")
        return _sign(flags, text.upper() if verb in "EG" else text), True
    return _bad(verb, value), False


def _string(verb: str, flags: str, precision: int | None, text: str) -> str:
    cut = text if precision is None else text[:precision]
    if verb == "s":
        return cut
    if verb == "q":
        if "#" in flags and "`" not in cut and "\n" not in cut:
            return f"`{cut}`"
        return go_quote(cut, ascii_only="+" in flags)
    if verb in "xX":
        data = text.encode("utf-8", "surrogateescape")[:precision]
        raw = data.hex(" ") if " " in flags else data.hex()
        return raw.upper() if verb == "X" else raw
    return f"%!{verb}(string={text})"


def go_syntax(value: Any) -> str:
    """`%#v`: the value as Go source."""
    match value:
        case None:
            return "interface {}(nil)"
        case str():
            return go_quote(value)
        case bool() | int() | float():
            return show(value)
        case GoStruct():
            inner = ", ".join(f"{k}:{go_syntax(v)}" for k, v in value.fields.items())
            return f"{value.type_name.lstrip('*')}{{{inner}}}"
        case dict():
            inner = ", ".join(f"{go_quote(str(k))}:{go_syntax(v)}" for k, v in sorted_items(value))
            return f"map[string]interface {{}}{{{inner}}}"
        case list() | tuple():
            return "[]interface {}{" + ", ".join(map(go_syntax, value)) + "}"
    return show(value)

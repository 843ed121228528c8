"""Calls whose arguments stand between tags, read from front to back.

A value ends at its own closing tag and at nothing else: what looks like a tag inside it belongs to it. One
that is not closed was cut off, and then there is no call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.repair import JsonSpan
from llm_engine.chat.parsing.values import Made, arguments_of, coerce, schema_of

_FUNCTION = re.compile(r"<function=([^>\n]{1,256})>\s*")
_IN_FUNCTION = re.compile(r"<parameter=([^>\n]{1,256})>\n?|</function>|(?=<function=)")


def xml_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`<function=name><parameter=key>value</parameter></function>`; JSON may stand for the parameters."""
    calls, at = [], 0
    while found := _FUNCTION.search(text, at):
        name, at = found[1].strip(), found.end()
        if text[at : at + 1] == "{":
            arguments, at = _json(text, at)
        else:
            arguments, at = _parameters(text, at, schema_of(name, tools))
        if arguments is None:
            return None
        calls.append(Made(name, arguments))
    return calls or None


def _json(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The arguments of a function that are JSON, which may lack brackets at the end."""
    span = JsonSpan()
    end = span.feed(text, at)
    if end is None:
        close = text.rfind("</function>", at)
        end = len(text) if close < 0 else close
    return arguments_of(text[at:end]), end


def _parameters(text: str, at: int, known: Any) -> tuple[dict[str, Any] | None, int]:
    arguments: dict[str, Any] = {}
    while found := _IN_FUNCTION.search(text, at):
        at = found.end()
        if found[1] is None:
            return arguments, at
        end = text.find("</parameter>", at)
        if end < 0:
            return None, at
        key = found[1].strip()
        arguments[key] = coerce(text[at:end].removesuffix("\n"), known.get(key))
        at = end + len("</parameter>")
    return arguments, len(text)


def function_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """What follows `<function=`: `name>{...}` or `name>` and parameters."""
    return xml_body(f"<function={text}", tools)


_INVOKE = re.compile(r'<(?:｜DSML｜)?invoke name="([^"\n]{1,256})">')
_IN_INVOKE = re.compile(
    r'<(｜DSML｜)?parameter name="([^"\n]{1,256})"(?: string="(true|false)")?>'
    r"|</(?:｜DSML｜)?invoke>|(?=<(?:｜DSML｜)?invoke name=)"
)


def invoke_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`<invoke name="f"><parameter name="k">value</parameter></invoke>`, plain or with DeepSeek's prefix."""
    calls, at = [], 0
    while call := _INVOKE.search(text, at):
        known, arguments, at = schema_of(call[1], tools), {}, call.end()
        while found := _IN_INVOKE.search(text, at):
            at = found.end()
            if (key := found[2]) is None:
                break
            closing = f"</{found[1] or ''}parameter>"
            end = text.find(closing, at)
            if end < 0:
                return None
            value = text[at:end]
            arguments[key] = value if found[3] == "true" else coerce(value, known.get(key))
            at = end + len(closing)
        calls.append(Made(call[1], arguments))
    return calls or None


_ARG_VALUE = re.compile(r"\s*<arg_value>")


def glm_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`name` and then pairs of `<arg_key>` and `<arg_value>`."""
    name = text.partition("<arg_key>")[0].strip()
    if not name or any(c in name for c in "{}<>\n "):
        return None
    known, arguments, at = schema_of(name, tools), {}, 0
    while (begins := text.find("<arg_key>", at)) >= 0:
        ends = text.find("</arg_key>", begins)
        value = _ARG_VALUE.match(text, ends + len("</arg_key>")) if ends >= 0 else None
        end = text.find("</arg_value>", value.end()) if value else -1
        if value is None or end < 0:
            return None
        key = text[begins + len("<arg_key>") : ends].strip()
        arguments[key] = coerce(text[value.end() : end], known.get(key))
        at = end + len("</arg_value>")
    return [Made(name, arguments)]


_PARAM = re.compile(r'<param name="([^"\n]{1,256})">')
_CDATA, _CDATA_END, _PARAM_END = "<![CDATA[", "]]>", "</param>"


def param_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """What follows `<function name="`: `name"><param name="key">value</param>`."""
    name, separator, _ = text.partition('">')
    if not separator:
        return None
    known, arguments, at = schema_of(name, tools), {}, len(name) + len(separator)
    while found := _PARAM.search(text, at):
        value, at = _param(text, found.end())
        if value is None:
            return None
        arguments[found[1]] = coerce(value, known.get(found[1]))
    return [Made(name, arguments)]


def _param(text: str, at: int) -> tuple[str | None, int]:
    """A value up to its closing tag; inside CDATA there is none."""
    said = ""
    while (end := text.find(_PARAM_END, at)) >= 0:
        begins = text.find(_CDATA, at, end)
        if begins < 0:
            return said + text[at:end], end + len(_PARAM_END)
        closes = text.find(_CDATA_END, begins)
        if closes < 0:
            return None, at
        said += text[at:begins] + text[begins + len(_CDATA) : closes]
        at = closes + len(_CDATA_END)
    return None, at

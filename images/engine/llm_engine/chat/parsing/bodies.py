"""From the inside of a tool call to its name and arguments, for each way in which models write one."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import repair
from llm_engine.chat.parsing.pairs import glm_body, xml_body
from llm_engine.chat.parsing.values import Made, arguments_of

_NAMES = ("name", "tool_name", "function_name", "function", "tool")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "tool_arguments")


def from_json(value: Any, tools: Sequence[Tool], *, known_only: bool = False) -> list[Made] | None:
    """Calls in a JSON value: an object, a list of them, or `{"tool name": {arguments}}`."""
    if isinstance(value, list):
        calls: list[Made] = []
        for item in value:
            one = from_json(item, tools, known_only=known_only) if isinstance(item, dict) else None
            if one is None:
                return None
            calls.extend(one)
        return calls or None
    if not isinstance(value, dict):
        return None
    function = value.get("function")
    if isinstance(function, dict):
        return from_json(function, tools, known_only=known_only)
    names = {tool.name for tool in tools}
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is None:
        key, inner = next(iter(value.items()), ("", None))
        if len(value) == 1 and key in names and isinstance(inner, dict):
            return [Made(key, inner)]
        return None
    if known_only and name not in names:
        return None
    given = next((value[key] for key in _ARGUMENTS if key in value), None)
    if known_only and given is None and _required(name, tools):
        return None
    arguments = arguments_of(given)
    if arguments is None:
        return None
    call_id = value.get("id", value.get("tool_call_id", ""))
    return [Made(name, arguments, call_id if isinstance(call_id, str) else "")]


def _required(name: str, tools: Sequence[Tool]) -> bool:
    schema = next((tool.parameters for tool in tools if tool.name == name), None) or {}
    return bool(schema.get("required"))


def json_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    try:
        return from_json(repair.loads(text), tools)
    except ValueError:
        return _several(text, tools)


def _several(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """Several JSON values in a row, as some models put into one pair of tags."""
    calls: list[Made] = []
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n,;":
            at += 1
            continue
        end = repair.JsonSpan().feed(text, at)
        if end is None:
            return None
        try:
            value, at = repair.loads(text[at:end]), end
        except ValueError:
            return None
        found = from_json(value, tools)
        if found is None:
            return None
        calls += found
    return calls or None


def tool_call_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """What stands between `<tool_call>` tags: JSON (Hermes, Qwen), XML (Qwen coder) or pairs (GLM)."""
    inside = text.lstrip()
    if inside.startswith("<function="):
        return xml_body(inside, tools)
    if inside.startswith(("{", "[")):
        return json_body(inside, tools)
    known = "<arg_key>" in inside or inside.strip() in {tool.name for tool in tools}
    return glm_body(inside, tools) if known else None


def deepseek_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`function<sep>name` with fenced JSON (R1, V3), or `name<sep>{...}` (V3.1)."""
    before, separator, after = text.partition("<｜tool▁sep｜>")
    if not separator:
        return None
    name, rest = before.strip(), after
    if name == "function":
        name, _, rest = after.partition("\n")
    rest = rest.strip()
    if rest.startswith("```"):
        rest = rest.removeprefix("```").removeprefix("json").removesuffix("```")
    arguments = arguments_of(rest)
    return None if arguments is None else [Made(name.strip(), arguments)]


def kimi_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`functions.name:0<|tool_call_argument_begin|>{...}`."""
    call_id, _, rest = text.partition("<|tool_call_argument_begin|>")
    arguments = arguments_of(rest)
    name = call_id.strip().removeprefix("functions.").rpartition(":")
    return None if arguments is None else [Made(name[0] or name[2], arguments, call_id.strip())]


_GEMMA_CALL = re.compile(r"call:([\w.\-]+)\s*(\{.*\})\s*", re.DOTALL)
_GEMMA_KEY = re.compile(r"([{,]\s*)([A-Za-z_][\w\-]*)\s*:")


def gemma_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`call:name{key:<|"|>text<|"|>,other:1}`; FunctionGemma writes `<escape>` for the quotes."""
    found = _GEMMA_CALL.fullmatch(text.strip())
    if found is None:
        return None
    with contextlib.suppress(ValueError):
        plain = repair.strict(found[2])
        if isinstance(plain, dict):
            return [Made(found[1], plain)]
    quote = "<escape>" if "<escape>" in text else '<|"|>'
    parts = found[2].split(quote)
    for at in range(len(parts)):
        if at % 2:
            parts[at] = json.dumps(parts[at], ensure_ascii=False)
        else:
            parts[at] = _GEMMA_KEY.sub(r'\1"\2":', parts[at])
    try:
        arguments = repair.loads("".join(parts))
    except ValueError:
        return None
    return [Made(found[1], arguments)] if isinstance(arguments, dict) else None


def python_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """Calls in Python's syntax: `[f(a="b"), g()]` or one a line."""
    source = text.strip()
    try:
        tree = ast.parse(source if source.startswith("[") else source.replace("\n", ";"), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls: list[Made] = []
    for statement in tree.body:
        if not isinstance(statement, ast.Expr):
            return None
        value = statement.value
        for node in value.elts if isinstance(value, ast.List) else [value]:
            if not isinstance(node, ast.Call) or node.args:
                return None
            try:
                arguments = {str(k.arg): _python_value(k.value) for k in node.keywords if k.arg}
            except (ValueError, TypeError, RecursionError):
                return None
            calls.append(Made(ast.unparse(node.func), arguments))
    return calls or None


_JSON_WORDS = {"true": True, "false": False, "null": None}


def _python_value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _JSON_WORDS:
        return _JSON_WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_python_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_python_value(key) if key else "" for key in node.keys]
        return {str(k): _python_value(v) for k, v in zip(keys, node.values, strict=True)}
    value = ast.literal_eval(node)
    json.dumps(value, allow_nan=False)  # only what JSON can say
    return value


def named_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """Mistral since v11: `name[CALL_ID]id[ARGS]{...}`; before that a JSON list."""
    if text.lstrip().startswith(("[", "{")):
        return json_body(text, tools)
    header, _, rest = text.partition("{")
    name, _, call_id = header.replace("[ARGS]", "").partition("[CALL_ID]")
    arguments = arguments_of("{" + rest)
    return None if arguments is None else [Made(name.strip(), arguments, call_id.strip())]


def solar_body(text: str, tools: Sequence[Tool]) -> list[Made] | None:
    """`id<|tool_call:name|>name<|tool_call:args|>{...}`."""
    call_id, _, rest = text.partition("<|tool_call:name|>")
    name, _, given = rest.partition("<|tool_call:args|>")
    arguments = arguments_of(given)
    return [Made(name.strip(), arguments, call_id.strip())] if name and arguments is not None else None

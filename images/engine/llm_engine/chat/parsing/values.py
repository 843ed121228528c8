"""What a call is, as its model wrote it, and what a value that was written as text means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import repair


@dataclass(frozen=True, slots=True)
class Made:
    """A call as the model wrote it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


# None: this text is not a call.
Body = Callable[[str, Sequence[Tool]], list[Made] | None]


_NAMES: dict[type, str] = {str: "string", list: "array", dict: "object"}


def arguments_of(value: Any) -> dict[str, Any] | None:
    """A mapping, JSON text of one, or nothing."""
    if isinstance(value, str):
        try:
            value = repair.loads(value) if value.strip() else {}
        except ValueError:
            return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def schema_of(name: str, tools: Sequence[Tool]) -> Mapping[str, Any]:
    """The schemas of a tool's arguments."""
    schema = next((tool.parameters for tool in tools if tool.name == name), None) or {}
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def coerce(text: str, schema: Any) -> Any:
    """A value that was written as text, as its schema wants it. Where the schema takes a text, it is one
    unless it is exactly what else the schema takes; where it takes none, it is JSON if it can be.
    """
    wanted = _kinds(schema)
    if wanted == {"string"}:
        return text
    if "string" in wanted:
        return _exactly(text, wanted)
    try:
        return repair.loads(text)
    except ValueError:
        word = text.strip().lower()
        return word == "true" if "boolean" in wanted and word in ("true", "false") else text


def _exactly(text: str, wanted: set[str]) -> Any:
    try:
        value = repair.strict(text)
    except (ValueError, RecursionError):
        return text
    return value if _kind(value) & wanted else text


def _kinds(schema: Any, depth: int = 0) -> set[str]:
    """The types that a schema takes; none: it does not say."""
    if not isinstance(schema, Mapping) or depth > 8:
        return set()
    kinds = schema.get("type")
    found = {kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) and not found else ():
            found |= _kinds(option, depth + 1)
    words = schema.get("enum", [schema["const"]] if "const" in schema else [])
    for word in words if isinstance(words, list) and not found else ():
        found |= _kind(word)
    return found | {"null"} if found and schema.get("nullable") is True else found


def _kind(value: Any) -> set[str]:
    """The types whose value this is."""
    if value is None:
        return {"null"}
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    return {"number" if isinstance(value, float) else _NAMES[type(value)]}

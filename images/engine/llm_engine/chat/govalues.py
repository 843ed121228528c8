"""The conversation as the Go values that Ollama's templates were written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_engine.chat.messages import Call, Message, Tool
from llm_engine.templates.gotemplate.functions import typescript_type
from llm_engine.templates.gotemplate.values import GoStruct, JsonList, JsonMap, OrderedJsonMap

_PROPERTY_JSON = {
    "AnyOf": "anyOf",
    "Type": "type",
    "Items": "items",
    "Description": "description",
    "Enum": "enum",
    "Properties": "properties",
    "Required": "required",
}


def go_message(message: Message) -> GoStruct:
    return GoStruct(
        "*api.Message",
        {
            "Role": message.role,
            "Content": message.content,
            "Thinking": message.thinking,
            "Images": list(message.images),
            "ToolCalls": JsonList(go_call(call) for call in message.tool_calls),
            "ToolName": message.tool_name,
            "ToolCallID": message.tool_call_id,
        },
        {
            "Role": "role",
            "Content": "content",
            "Thinking": "thinking",
            "ToolCalls": "tool_calls",
            "ToolName": "tool_name",
            "ToolCallID": "tool_call_id",
        },
        omit_empty=frozenset(["Thinking", "ToolCalls", "ToolName", "ToolCallID"]),
    )


def go_call(call: Call) -> GoStruct:
    function = GoStruct(
        "api.ToolCallFunction",
        {"Index": call.index, "Name": call.name, "Arguments": _json_map(call.arguments)},
        {"Index": "index", "Name": "name", "Arguments": "arguments"},
        prints_json=True,
    )
    return GoStruct(
        "api.ToolCall",
        {"ID": call.id, "Function": function},
        {"ID": "id", "Function": "function"},
        omit_empty=frozenset(["ID"]),
        prints_json=True,
    )


def _json_map(value: Mapping[str, Any]) -> JsonMap:
    return JsonMap((key, _nested(item)) for key, item in value.items())


def _nested(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nested(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(item) for item in value]
    return value


def go_tools(tools: Sequence[Tool]) -> JsonList:
    return JsonList(go_tool(tool) for tool in tools)


def go_tool(tool: Tool) -> GoStruct:
    schema = dict(tool.parameters or {"type": "object", "properties": {}})
    properties = schema.pop("properties", None)
    parameters = GoStruct(
        "api.ToolFunctionParameters",
        {
            "Type": schema.pop("type", "object"),
            "Defs": schema.pop("$defs", None),
            "Items": schema.pop("items", None),
            "Required": schema.pop("required", None) or [],
            "Properties": _properties(properties),
        },
        {
            "Type": "type",
            "Defs": "$defs",
            "Items": "items",
            "Required": "required",
            "Properties": "properties",
        },
        omit_empty=frozenset(["Defs", "Items", "Required"]),
        prints_json=True,
        extra_json=schema,
    )
    function = GoStruct(
        "api.ToolFunction",
        {"Name": tool.name, "Description": tool.description, "Parameters": parameters},
        {"Name": "name", "Description": "description", "Parameters": "parameters"},
        omit_empty=frozenset(["Description"]),
        prints_json=True,
    )
    return GoStruct(
        "api.Tool",
        {"Type": tool.type, "Items": None, "Function": function},
        {"Type": "type", "Items": "items", "Function": "function"},
        omit_empty=frozenset(["Items"]),
        prints_json=True,
    )


def _properties(value: Any) -> OrderedJsonMap:
    if not isinstance(value, Mapping):
        return OrderedJsonMap()
    return OrderedJsonMap((name, go_property(schema)) for name, schema in value.items())


def go_property(schema: Any) -> Any:
    """One property of a tool; keys that Ollama does not know follow the known ones instead of vanishing."""
    if not isinstance(schema, Mapping):
        return schema
    rest = {key: value for key, value in schema.items() if key not in _PROPERTY_JSON.values()}
    kinds = schema.get("type", "")
    fields: dict[str, Any] = {
        "AnyOf": [go_property(option) for option in schema.get("anyOf") or []],
        "Type": JsonList(kinds) if isinstance(kinds, list) else kinds,
        "Items": _nested(schema.get("items")),
        "Description": schema.get("description", ""),
        "Enum": _nested(schema.get("enum") or []),
        "Properties": _properties(schema.get("properties")),
        "Required": list(schema.get("required") or []),
    }
    struct = GoStruct(
        "api.ToolProperty",
        fields,
        _PROPERTY_JSON,
        omit_empty=frozenset(_PROPERTY_JSON),
        prints_json=True,
        extra_json=rest,
    )
    struct.methods = {"ToTypeScriptType": lambda: typescript_type(struct)}
    return struct

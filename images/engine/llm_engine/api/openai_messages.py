"""From OpenAI's messages, tools and choices to the engine's own, with Ollama's sentences for what is
refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llm_engine.api import base64text, goparse
from llm_engine.api.errors import bad_request
from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.turn import JsonFormat, ToolChoice
from llm_engine.chat.messages import Call, Message, Tool, role_named

_MEDIA_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp")
_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def messages(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation. Parts of one message stay one message, in their order."""
    if not items:
        raise bad_request("[] is too short - 'messages'", param="messages")
    names: dict[str, str] = {}
    result = []
    for index, item in enumerate(items):
        message = _message(item, f"messages[{index}]", names)
        result.append(message)
        names.update({call.id: call.name for call in message.tool_calls})
    return result


def _message(item: Mapping[str, Any], where: str, names: Mapping[str, str]) -> Message:
    role = item.get("role")
    if not isinstance(role, str):
        raise bad_request(f"{where}.role must be a string", param=f"{where}.role")
    calls = tool_calls(item.get("tool_calls"), where)
    text, images = content(item.get("content"), where, allow_null=bool(calls))
    call_id = item.get("tool_call_id") or ""
    name = item.get("name") or ""
    reasoning = item.get("reasoning") or item.get("reasoning_content") or ""
    for label, value in (("tool_call_id", call_id), ("name", name), ("reasoning", reasoning)):
        if not isinstance(value, str):
            raise bad_request(f"{where}.{label} must be a string", param=f"{where}.{label}")
    return Message(
        role=role_named(role),
        content=text,
        thinking=reasoning,
        images=images,
        tool_calls=calls,
        tool_name=name or names.get(call_id, ""),
        tool_call_id=call_id,
    )


def content(value: Any, where: str, *, allow_null: bool = False) -> tuple[str, list[bytes]]:
    """Text and pictures of a message's content, which is a string or a list of parts."""
    if isinstance(value, str):
        return value, []
    if value is None and allow_null:
        return "", []
    if not isinstance(value, list):
        raise bad_request(f"invalid message content type: {_go_type(value)}", param=f"{where}.content")
    texts: list[str] = []
    images: list[bytes] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image_url", "input_image"):
            images.append(image(part.get("image_url")))
        elif kind == "input_audio" and isinstance(part.get("input_audio"), dict):
            images.append(_base64(part["input_audio"].get("data"), "invalid input_audio data"))
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif kind == "input_file":
            raise bad_request("file inputs are not currently supported")
        else:
            raise bad_request("invalid message format", param=f"{where}.content")
    return "\n\n".join(texts), images


def _go_type(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    return "float64" if isinstance(value, (int, float)) else "map[string]interface {}"


def image(value: Any) -> bytes:
    """A data URL, bare or as `{"url": ...}`. Pictures are never fetched: a server that did could be made
    to."""
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise bad_request("invalid image input")
    if url.startswith(("http://", "https://")):
        raise bad_request("image URLs are not currently supported, please use base64 encoded data instead")
    head, comma, data = url.partition(",")
    media, _, encoding = head.removeprefix("data:").partition(";")
    if not head.startswith("data:") or not comma or encoding != "base64" or media not in (*_MEDIA_TYPES, ""):
        raise bad_request("invalid image input")
    return _base64(data, "invalid image input")


def _base64(data: Any, refusal: str) -> bytes:
    if not isinstance(data, str):
        raise bad_request(refusal)
    try:
        return base64text.decode(data)
    except base64text.NotBase64:
        raise bad_request(refusal) from None


def tool_calls(value: Any, where: str) -> list[Call]:
    """The calls an assistant message made earlier in the conversation."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_request(f"{where}.tool_calls must be a list", param=f"{where}.tool_calls")
    calls = []
    for index, item in enumerate(value):
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise bad_request(f"{where}.tool_calls[{index}] must have a function with a name")
        call_id = item.get("id") if isinstance(item.get("id"), str) else ""
        arguments = call_arguments(function.get("arguments"))
        calls.append(Call(function["name"], arguments, cast(str, call_id), index))
    return calls


def call_arguments(value: Any) -> dict[str, Any]:
    if value in (None, ""):
        return {}
    if isinstance(value, dict):
        return value
    try:
        parsed = goparse.whole(value) if isinstance(value, str) else None
    except GoDecodeError:
        raise bad_request("invalid tool call arguments") from None
    if not isinstance(parsed, dict):
        raise bad_request("invalid tool call arguments")
    return parsed


def tools(items: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """Function tools, in the nested shape of chat completions or the flat one of responses."""
    result = []
    for index, item in enumerate(items):
        kind = item.get("type", "function")
        if kind != "function":
            raise bad_request(
                f'tools[{index}]: tool type "{kind}" is not supported', param=f"tools[{index}].type"
            )
        function = item.get("function", item)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise bad_request(
                f"tools[{index}]: a function needs a name", param=f"tools[{index}].function.name"
            )
        result.append(tool(function, f"tools[{index}]"))
    return result


def tool(function: Mapping[str, Any], where: str) -> Tool:
    parameters = function.get("parameters")
    description = function.get("description")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad_request(f"{where}: parameters must be a JSON schema object")
    if description is not None and not isinstance(description, str):
        raise bad_request(f"{where}: description must be a string")
    return Tool(function["name"], description or "", parameters)


def tool_choice(value: Any, available: Sequence[Tool]) -> ToolChoice:
    """`none`, `auto`, `required`, or one function by name; a name that is not there is a mistake."""
    if value is None:
        return ToolChoice()
    if value in ("auto", "none", "required"):
        if value == "required" and not available:
            raise bad_request("tool_choice is 'required' but no tools were given", param="tool_choice")
        return ToolChoice(cast(Any, value))
    if isinstance(value, dict) and value.get("type") == "function":
        function = value.get("function", value)
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            if all(tool.name != name for tool in available):
                raise bad_request(f'tool_choice: there is no tool named "{name}"', param="tool_choice")
            return ToolChoice("required", name)
    if isinstance(value, dict) and value.get("type") in ("auto", "none", "required"):
        return tool_choice(value["type"], available)
    raise bad_request("tool_choice must be 'none', 'auto', 'required' or a function", param="tool_choice")


def response_format(value: Any) -> JsonFormat | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        holder = value.get("json_schema", value)
        schema = holder.get("schema") if isinstance(holder, dict) else None
        if isinstance(schema, dict):
            return schema
        raise bad_request("response_format: json_schema needs a schema object", param="response_format")
    raise bad_request(
        "response_format.type must be 'text', 'json_object' or 'json_schema'", param="response_format"
    )


def effort(value: Any) -> bool | str | None:
    """How hard to think."""
    if value in (None, ""):
        return None
    if not isinstance(value, str) or value not in _EFFORTS:
        raise bad_request(
            f'invalid reasoning value: "{value}" (must be "minimal", "low", "medium", "high", "xhigh", '
            '"ultra", "max", or "none")',
            param="reasoning_effort",
        )
    return _EFFORTS[value]


def stop(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise bad_request(f"invalid type for 'stop' field: {_go_type(value)}", param="stop")
    for item in value:
        if not isinstance(item, str):
            raise bad_request(f"invalid type for 'stop' field: {_go_type(item)}", param="stop")
    return [item for item in value if item]

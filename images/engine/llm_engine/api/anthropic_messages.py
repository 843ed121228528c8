"""From Anthropic's messages, blocks and tools to the engine's own, with Ollama's sentences for what is
refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llm_engine.api import base64text
from llm_engine.api.anthropic_types import CountTokensRequest, MessagesRequest
from llm_engine.api.errors import bad_request
from llm_engine.api.ranges import check_anthropic
from llm_engine.api.turn import JsonFormat, ToolChoice, Turn
from llm_engine.chat.messages import Call, Message, Tool, role_named

_EFFORTS: dict[str, bool | str] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def to_turn(request: MessagesRequest | CountTokensRequest) -> Turn:
    if not request.model:
        raise bad_request("model is required")
    if isinstance(request, MessagesRequest) and request.max_tokens <= 0:
        raise bad_request("max_tokens is required and must be positive")
    if not request.messages:
        raise bad_request("messages is required")
    tools = [_tool(item, index) for index, item in enumerate(request.tools)]
    choice, parallel = tool_choice(request.tool_choice, tools)
    return Turn(
        model=request.model,
        messages=messages(request.messages, request.system),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        think=_think(request),
        relax_thinking=True,
        format=_format(request),
        options=(request.options or {}) if isinstance(request, MessagesRequest) else {},
        overrides=_overrides(request),
        count_prompt=True,
    )


def _overrides(request: MessagesRequest | CountTokensRequest) -> dict[str, Any]:
    if isinstance(request, CountTokensRequest):
        return {}
    given: dict[str, Any] = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": list(request.stop_sequences) or None,
    }
    check_anthropic(given)
    return {name: value for name, value in given.items() if value is not None}


def _think(request: MessagesRequest | CountTokensRequest) -> bool | str | None:
    """How hard to think: at all only where it is asked for, for a client that cannot show thinking must not
    get it."""
    thinking, config = request.thinking, request.output_config
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if thinking is not None and kind not in ("enabled", "disabled", "adaptive"):
        raise bad_request("thinking.type must be 'enabled', 'adaptive' or 'disabled'")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None and str(effort) not in _EFFORTS:
        raise bad_request(f'invalid output_config.effort: "{effort}"')
    if kind == "disabled":
        return False
    return kind is not None if effort is None else _EFFORTS[str(effort)]


def _format(request: MessagesRequest | CountTokensRequest) -> JsonFormat | None:
    wanted, config = request.output_format, request.output_config
    if wanted is None and isinstance(config, dict):
        wanted = config.get("format")
    if wanted is None:
        return None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict) or wanted.get("type") != "json_schema":
        raise bad_request("output format must be a json_schema with a schema object")
    return schema


def messages(items: Sequence[Mapping[str, Any]], system: Any) -> list[Message]:
    result = []
    if text := _system(system):
        result.append(Message(role="system", content=text))
    names: dict[str, str] = {}
    for index, item in enumerate(items):
        role = item.get("role")
        if not isinstance(role, str):
            raise bad_request(f"messages.{index}: role must be a string")
        result.extend(_message(role_named(role), item.get("content"), index, names))
    return result


def _system(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(_is_text(block) for block in value):
        return "".join(block["text"] for block in value)
    raise bad_request("system must be a string or a list of text blocks")


def _is_text(block: Any) -> bool:
    return (
        isinstance(block, dict) and block.get("type", "text") == "text" and isinstance(block.get("text"), str)
    )


def _message(role: str, content: Any, index: int, names: dict[str, str]) -> list[Message]:
    """One message of theirs; tool results become messages of their own, before the rest."""
    if isinstance(content, str):
        return [Message(role=role, content=content)]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise bad_request(f"messages.{index}: content must be a string or a list of blocks")
    results: list[Message] = []
    texts: list[str] = []
    thinking: list[str] = []
    images: list[bytes] = []
    calls: list[Call] = []
    for at, block in enumerate(content):
        match block.get("type"):
            case "thinking" if isinstance(block.get("thinking"), str):
                thinking.append(block["thinking"])
            case "redacted_thinking":
                pass  # only who wrote it can read it
            case "tool_use":
                call = _tool_use(block, len(calls))
                names[call.id] = call.name
                calls.append(call)
            case "tool_result":
                results.append(_tool_result(block, names, f"messages.{index}.content.{at}"))
            case _:
                _shown(block, f"messages.{index}.content.{at}", texts, images)
    if texts or images or calls or thinking or not results:
        results.append(
            Message(
                role=role,
                content="\n\n".join(texts),
                thinking="".join(thinking),
                images=images,
                tool_calls=calls,
            )
        )
    return results


def _tool_use(block: Mapping[str, Any], index: int) -> Call:
    for name in ("id", "name"):
        if not isinstance(block.get(name), str) or not block[name]:
            raise bad_request(f"tool_use block missing required '{name}' field")
    arguments = block.get("input")
    if arguments is not None and not isinstance(arguments, dict):
        raise bad_request("tool_use block: input must be an object")
    return Call(block["name"], arguments or {}, block["id"], index)


def _shown(block: Any, where: str, texts: list[str], images: list[bytes]) -> None:
    """A block that the model is to see: its text or its picture. What cannot be shown is refused, for an
    answer that never saw it would be wrong without anybody's knowing.
    """
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "image":
        images.append(_image(block.get("source")))
        return
    match kind:
        case "text":
            parts = [block]
        case "document":
            parts = _document(block, where)
        case "search_result":
            parts = [*_titles(block, "title", "source"), *_parts(block.get("content"), where)]
        case _:
            raise bad_request(f'{where}: content block type "{kind}" is not supported')
    if not all(map(_is_text, parts)):
        raise bad_request(f"{where}: a {kind} block needs a text")
    texts.append("\n\n".join(part["text"] for part in parts))


def _document(block: Mapping[str, Any], where: str) -> list[Any]:
    """A document that is text, with what is said about it."""
    given = block.get("source")
    source: dict[str, Any] = given if isinstance(given, dict) else {}
    kind = source.get("type")
    if kind == "text":
        inside = [{"text": source["data"]}] if "data" in source else []
    elif kind == "content":
        inside = _parts(source.get("content"), where)
    else:
        raise bad_request(
            f'{where}: only documents of source type "text" or "content" are read, not "{kind}"'
        )
    return [*_titles(block, "title", "context"), *inside]


def _titles(block: Mapping[str, Any], *keys: str) -> list[Any]:
    return [{"text": block[key]} for key in keys if block.get(key)]


def _parts(content: Any, where: str) -> list[Any]:
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        raise bad_request(f"{where}: content must be a string or a list of text blocks")
    return content


def _tool_result(block: Mapping[str, Any], names: Mapping[str, str], where: str) -> Message:
    content = block.get("content")
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise bad_request("tool_result block missing required 'tool_use_id' field")
    images: list[bytes] = []
    texts = [content] if isinstance(content, str) else []
    if content is not None and not isinstance(content, str):
        for at, part in enumerate(_parts(content, where)):
            _shown(part, f"{where}.content.{at}", texts, images)
    return Message(
        role="tool",
        content="\n\n".join(texts),
        images=images,
        tool_name=names.get(call_id, ""),
        tool_call_id=call_id,
    )


def _image(source: Any) -> bytes:
    if not isinstance(source, dict):
        raise bad_request("invalid image source")
    if source.get("type") != "base64":
        raise bad_request(
            f"invalid image source type: {source.get('type')}. Only base64 images are supported."
        )
    try:
        return base64text.decode(source["data"])
    except (KeyError, TypeError, base64text.NotBase64):
        raise bad_request("invalid image source") from None


def _tool(item: Mapping[str, Any], index: int) -> Tool:
    name = item.get("name")
    kind = item.get("type", "custom")
    if kind not in ("custom", None):
        raise bad_request(f'tools.{index}: tool type "{kind}" is not supported')
    if not isinstance(name, str) or not name:
        raise bad_request(f"tools.{index}: a tool needs a name")
    schema = item.get("input_schema")
    if schema is not None and not isinstance(schema, dict):
        raise bad_request(f'invalid input_schema for tool "{name}": it must be an object')
    description = item.get("description")
    if description is not None and not isinstance(description, str):
        raise bad_request(f"tools.{index}: description must be a string")
    return Tool(name, description or "", schema)


def tool_choice(value: Any, tools: Sequence[Tool]) -> tuple[ToolChoice, bool]:
    """The choice, and whether several calls at once are allowed."""
    if value is None:
        return ToolChoice(), True
    kind = value.get("type") if isinstance(value, dict) else None
    parallel = not (isinstance(value, dict) and value.get("disable_parallel_tool_use") is True)
    if kind in ("auto", "none"):
        return ToolChoice(cast(Any, kind)), parallel
    if kind == "any":
        if not tools:
            raise bad_request("tool_choice is 'any' but no tools were given")
        return ToolChoice("required"), parallel
    if kind == "tool" and isinstance(value.get("name"), str):
        if all(tool.name != value["name"] for tool in tools):
            raise bad_request(f'tool_choice: there is no tool named "{value["name"]}"')
        return ToolChoice("required", value["name"]), parallel
    raise bad_request("tool_choice.type must be 'auto', 'any', 'tool' or 'none'")

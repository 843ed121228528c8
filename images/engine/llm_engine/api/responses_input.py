"""From the items of a Responses request to a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_engine.api import openai_messages as wire
from llm_engine.api.errors import bad_request
from llm_engine.api.ranges import check_openai
from llm_engine.api.responses_types import ResponsesRequest
from llm_engine.api.turn import JsonFormat, Turn
from llm_engine.chat.messages import Call, Message, Tool, role_named

_IGNORED = frozenset({"web_search_call"})
"""What another service did for an earlier answer; what came of it stands in that answer."""


def to_turn(request: ResponsesRequest) -> Turn:
    if not request.model:
        raise bad_request("model is required", param="model")
    if request.previous_response_id:
        raise bad_request(
            "previous_response_id is not supported: nothing is stored, send the whole conversation",
            param="previous_response_id",
        )
    if request.background:
        raise bad_request("background responses are not supported", param="background")
    tools = tools_of(request.tools)
    overrides: dict[str, Any] = {}
    if request.max_output_tokens is not None:
        overrides["num_predict"] = request.max_output_tokens
    if request.temperature is not None:
        overrides["temperature"] = request.temperature
    if request.top_p is not None:
        overrides["top_p"] = request.top_p
    check_openai(overrides)
    reasoning = request.reasoning.get("effort") if isinstance(request.reasoning, dict) else None
    return Turn(
        model=request.model,
        messages=messages(request.input, request.instructions),
        tools=tools,
        tool_choice=wire.tool_choice(request.tool_choice, tools),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        think=wire.effort(reasoning),
        relax_thinking=True,
        format=_format(request.text),
        options=request.options or {},
        overrides=overrides,
        fallbacks={"temperature": 1.0, "top_p": 1.0},
        truncate=request.truncation == "auto",
    )


def _format(text: Any) -> JsonFormat | None:
    wanted = text.get("format") if isinstance(text, dict) else None
    return wire.response_format(wanted)


def tools_of(items: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """Functions, and namespaces whose members are called `namespace.name`. Hosted tools are not offered."""
    result: list[Tool] = []
    for index, item in enumerate(items):
        if item.get("type") == "namespace" and isinstance(item.get("tools"), list):
            prefix = item.get("name", "")
            for member in item["tools"]:
                if isinstance(member, dict):
                    result += wire.tools([{**member, "name": f"{prefix}.{member.get('name', '')}"}])
        elif str(item.get("type", "")).startswith("web_search"):
            raise bad_request(
                f"tools[{index}]: web search is not available here", param=f"tools[{index}].type"
            )
        else:
            result += wire.tools([item])
    return result


def messages(value: Any, instructions: str) -> list[Message]:
    start = [Message("system", instructions)] if instructions else []
    if value is None:
        return start
    if isinstance(value, str):
        return [*start, Message("user", value)]
    if not isinstance(value, list):
        raise bad_request("input must be a string or a list of items", param="input")
    builder = _Builder(start)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise bad_request(f"input[{index}] must be an object", param=f"input[{index}]")
        builder.add(item, index)
    return builder.messages


class _Builder:
    """Joins what belongs to one turn of the assistant: its thinking, its text and its calls."""

    def __init__(self, start: list[Message]) -> None:
        self.messages = start
        self.names: dict[str, str] = {}
        self.thinking = ""

    def add(self, item: Mapping[str, Any], index: int) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        match kind:
            case "message":
                self._message(item, index)
            case "function_call":
                self._call(item, index)
            case "function_call_output":
                self._output(item, index)
            case "reasoning":
                self.thinking += _reasoning_text(item)
            case "item_reference":
                raise bad_request(
                    f"input[{index}]: item_reference is not supported: nothing is stored, send the item",
                    param=f"input[{index}]",
                )
            case None:
                raise bad_request("input item missing required 'type' field", param=f"input[{index}]")
            case _ if kind not in _IGNORED:
                raise bad_request(
                    f'input[{index}]: unknown input item type: "{kind}"', param=f"input[{index}]"
                )

    def _message(self, item: Mapping[str, Any], index: int) -> None:
        role = item.get("role")
        if not isinstance(role, str):
            raise bad_request(f"input[{index}].role must be a string", param=f"input[{index}].role")
        text, images = wire.content(item.get("content"), f"input[{index}]")
        thinking = self._take_thinking() if role == "assistant" else ""
        self.messages.append(Message(role_named(role), text, thinking, images))

    def _call(self, item: Mapping[str, Any], index: int) -> None:
        call_id, name = item.get("call_id"), item.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str):
            raise bad_request(f"input[{index}]: a function_call needs a call_id and a name")
        self.names[call_id] = name
        arguments = wire.call_arguments(item.get("arguments"))
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant":
            call = Call(name, arguments, call_id, len(last.tool_calls))
            self.messages[-1] = Message(
                "assistant",
                last.content,
                last.thinking or self._take_thinking(),
                last.images,
                (*last.tool_calls, call),
            )
        else:
            call = Call(name, arguments, call_id, 0)
            self.messages.append(Message("assistant", "", self._take_thinking(), (), (call,)))

    def _output(self, item: Mapping[str, Any], index: int) -> None:
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            raise bad_request(f"input[{index}]: a function_call_output needs a call_id")
        text, images = wire.content(item.get("output"), f"input[{index}]")
        self.messages.append(Message("tool", text, "", images, (), self.names.get(call_id, ""), call_id))

    def _take_thinking(self) -> str:
        text, self.thinking = self.thinking, ""
        return text


def _reasoning_text(item: Mapping[str, Any]) -> str:
    encrypted = item.get("encrypted_content")
    if isinstance(encrypted, str) and encrypted:
        return encrypted
    summary = item.get("summary")
    parts = summary if isinstance(summary, list) else []
    return "".join(
        part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )

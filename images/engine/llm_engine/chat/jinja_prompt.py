"""Rendering a conversation with the model's own Jinja template, adapted to what that template accepts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from llm_engine.chat.documents import Document
from llm_engine.chat.merging import merge, system_text
from llm_engine.chat.messages import Call, Message, Tool
from llm_engine.chat.model import ChatModel
from llm_engine.chat.parsing import family_of
from llm_engine.chat.toolless import describe, spell_out
from llm_engine.templates.errors import TemplateExecError, TemplateLimitError
from llm_engine.templates.jinja.conversation import arguments, older_names
from llm_engine.templates.jinja.traits import Traits


def render(
    model: ChatModel,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    think: bool | str | None,
    now: datetime | None,
    documents: Sequence[Document] = (),
) -> str:
    template, traits = model.jinja, model.jinja_traits
    assert template is not None and traits is not None
    if tools and not traits.tools:
        messages = describe(messages, tools, family_of(model).example)
    messages = spell_out(messages, calls=not traits.tool_calls, results=not traits.tool_results)
    if traits.system and not traits.systems:
        messages = _one_system(messages)
    if traits.alternating:
        messages = merge(messages)
    if not traits.system:
        messages = _system_into_user(messages)
    begun = ""
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        # An answer that is begun: the model continues it, so it stands open at the end of the prompt.
        begun, messages = messages[-1].content, messages[:-1]
    context: dict[str, Any] = {
        "messages": [_message(message, traits) for message in messages],
        "add_generation_prompt": True,
        "bos_token": model.bos,
        "eos_token": model.eos,
        **_thinking(think),
    }
    if tools:
        context["tools"] = [tool.as_json() for tool in tools]
    if documents:
        context["documents"] = [dict(document) for document in documents]
    context |= older_names(template.source, context.get("tools", []))
    try:
        return template.render(context, now=now) + begun
    except TemplateLimitError:
        raise
    except TemplateExecError:
        # Templates that insist on alternating roles, or on a user, often do so only in some cases.
        other = merge(messages)
        if not any(message.role == "user" for message in other):
            other.append(Message("user", ""))
        if other == list(messages):
            raise
        context["messages"] = [_message(message, traits) for message in other]
        return template.render(context, now=now) + begun


def _thinking(think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    # Each family has its own name for the switch.
    values: dict[str, Any] = dict.fromkeys(("enable_thinking", "thinking", "reasoning"), bool(think))
    if isinstance(think, str):
        values["reasoning_effort"] = "high" if think == "max" else think
    return values


def _one_system(messages: Sequence[Message]) -> list[Message]:
    """Templates that refuse or lose a second system message, or a late one, get all of them in the first."""
    rest = [message for message in messages if message.role != "system"]
    return [Message("system", system_text(messages)), *rest] if len(rest) < len(messages) else rest


def _system_into_user(messages: Sequence[Message]) -> list[Message]:
    """Templates without a system role get its text in front of the first user message."""
    system = system_text(messages)
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    for at, message in enumerate(rest):
        if message.role == "user":
            rest[at] = replace(message, content=f"{system}\n\n{message.content}")
            return rest
    return [Message("user", system), *rest]


def _message(message: Message, traits: Traits) -> dict[str, Any]:
    content: Any = message.content
    if traits.typed_content:
        content = [{"type": "text", "text": message.content}]
    result: dict[str, Any] = {"role": message.role, "content": content}
    if message.thinking:
        result["reasoning_content"] = result["thinking"] = message.thinking
    if message.tool_calls:
        result["tool_calls"] = [_call(call, traits) for call in message.tool_calls]
    if message.role == "tool":
        result["name"] = message.tool_name
        result["tool_call_id"] = _call_id(message.tool_call_id, traits)
    return result


def _call(call: Call, traits: Traits) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments(call.arguments, as_text=traits.text_arguments)}
    return {"id": _call_id(call.id, traits), "type": "function", "function": function}


def _call_id(call_id: str, traits: Traits) -> str:
    """Nine letters and digits where the template insists; the same id gives the same nine."""
    if not traits.short_call_ids or (len(call_id) == 9 and call_id.isalnum()):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]

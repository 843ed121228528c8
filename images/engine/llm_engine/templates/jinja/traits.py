"""What a Jinja template can do, found by rendering small conversations with it.

Asking the template is surer than searching its text: a template that mentions `tools` may ignore them, and
one that raises an exception for a system message says so only when it is given one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_engine.templates.errors import TemplateError
from llm_engine.templates.jinja.conversation import arguments, older_names
from llm_engine.templates.jinja.template import ChatTemplate

_USER, _SYSTEM, _TOOL, _ARGUMENT, _RESULT, _DOCUMENT = (
    "needleuser",
    "needlesystem",
    "needletool",
    "needlearg",
    "needleres",
    "needledocument",
)
_TOKENS = {"bos_token": "", "eos_token": ""}


@dataclass(frozen=True, slots=True)
class Traits:
    renders: bool
    system: bool
    """A system message is accepted and shown."""
    systems: bool
    """So are several of them, also after other messages."""
    typed_content: bool
    """Message content must be a list of parts."""
    tools: bool
    """Tools are shown to the model."""
    tool_calls: bool
    """Past tool calls are shown to the model."""
    tool_results: bool
    """Messages of role `tool` are shown to the model."""
    text_arguments: bool
    """Arguments of past calls must be JSON text."""
    short_call_ids: bool
    """Tool call ids must be nine letters and digits (Mistral)."""
    thinking: bool
    """The template switches thinking, or opens it by itself."""
    alternating: bool
    """Two messages of one role in a row are refused."""
    documents: bool
    """Documents are shown to the model."""


def tool() -> dict[str, Any]:
    schema = {"type": "object", "properties": {_ARGUMENT: {"type": "string", "description": "d"}}}
    schema |= {"required": [_ARGUMENT]}
    return {"type": "function", "function": {"name": _TOOL, "description": "d", "parameters": schema}}


def probe(template: ChatTemplate) -> Traits:
    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if typed else text

    def says(*messages: Mapping[str, Any], **extra: Any) -> str | None:
        context = {"messages": list(messages), "add_generation_prompt": True, **_TOKENS, **extra}
        context |= older_names(template.source, context.get("tools", []))
        try:
            return template.render(context)
        except TemplateError:
            return None

    def calls(as_text: bool, call_id: str) -> str | None:
        function = {"name": _TOOL, "arguments": arguments({_ARGUMENT: _ARGUMENT}, as_text=as_text)}
        call = {"id": call_id, "type": "function", "function": function}
        result = {"role": "tool", "content": content(_RESULT), "tool_call_id": call_id, "name": _TOOL}
        made = {"role": "assistant", "content": content(""), "tool_calls": [call]}
        return says(user, made, result, tools=[tool()])

    typed = False
    plain = says({"role": "user", "content": _USER})
    if plain is None or _USER not in plain:
        typed = True
        parts = says({"role": "user", "content": content(_USER)})
        typed = parts is not None and _USER in parts
        plain = parts if typed else plain
    user, user_again = (
        {"role": "user", "content": content(_USER)},
        {"role": "user", "content": content(_USER)},
    )
    with_system = says({"role": "system", "content": content(_SYSTEM)}, user)
    systems = [{"role": "system", "content": content(f"{_SYSTEM}{number}")} for number in range(3)]
    answer = {"role": "assistant", "content": content("a")}
    with_systems = says(*systems[:2], user, answer, systems[2], user_again)
    with_tools = says(user, tools=[tool()])
    long_id = calls(False, "call_abcd1234")
    short_ids = long_id is None and calls(False, "abcdefghi") is not None
    call_id = "abcdefghi" if short_ids else "call_abcd1234"
    shown = calls(False, call_id)
    as_text = False
    if shown is None or _ARGUMENT not in _after_tools(shown):
        with_text = calls(True, call_id)
        as_text = with_text is not None and (shown is None or _ARGUMENT in _after_tools(with_text))
        shown = with_text if as_text else shown
    return Traits(
        renders=plain is not None and _USER in plain,
        system=with_system is not None and _SYSTEM in with_system,
        systems=with_systems is not None and all(f"{_SYSTEM}{number}" in with_systems for number in range(3)),
        typed_content=typed,
        tools=with_tools is not None and _TOOL in with_tools,
        tool_calls=shown is not None and _ARGUMENT in _after_tools(shown),
        tool_results=_shows_results(says, user, content(""), content(_RESULT), call_id),
        text_arguments=as_text,
        short_call_ids=short_ids,
        thinking=_thinks(plain, says, user),
        alternating=says(user, user_again) is None,
        documents=_DOCUMENT in (says(user, documents=[{"title": _DOCUMENT, "text": _DOCUMENT}]) or ""),
    )


def _shows_results(says: Any, user: Mapping[str, Any], nothing: Any, result: Any, call_id: str) -> bool:
    """Also without a call before it, since a template may show results and not calls."""
    tool_message = {"role": "tool", "content": result, "tool_call_id": call_id, "name": _TOOL}
    function = {"name": _TOOL, "arguments": arguments({}, as_text=False)}
    made = {"role": "assistant", "content": nothing, "tool_calls": [{"id": call_id, "function": function}]}
    with_call = says(user, made, tool_message, tools=[tool()])
    without = says(user, {"role": "assistant", "content": nothing}, tool_message, tools=[tool()])
    return any(text is not None and _RESULT in text for text in (with_call, without))


def _after_tools(text: str) -> str:
    """What follows the first user message: the tool list may stand before it and holds the same names."""
    return text.partition(_USER)[2]


def _thinks(plain: str | None, says: Any, user: Mapping[str, Any]) -> bool:
    if plain is None:
        return False
    switches = (
        {"enable_thinking": True},
        {"enable_thinking": False},
        {"thinking": True},
        {"reasoning": False},
        {"thinking_mode": "disabled"},
        {"reasoning_effort": "high"},
    )
    if any((other := says(user, **switch)) is not None and other != plain for switch in switches):
        return True
    return plain.rstrip().endswith(("<think>", "[THINK]", "<|START_THINKING|>", "<seed:think>"))

"""What the parts of a conversation look like on the wire, for the description of the routes.

The handlers read these parts by hand, with sentences of their own for what is wrong; here is said what they
take. Unknown fields are ignored everywhere, so nothing forbids more.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}


def _shape(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _tagged(*kinds: str, **properties: Schema) -> Schema:
    return _shape(("type", *properties), type={"enum": list(kinds)}, **properties)


def _content(*parts: Schema) -> Schema:
    return {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": list(parts)}}]}


def _list(*items: Schema) -> Schema:
    return {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": list(items)}}


_ROLES: Schema = {"enum": ["system", "developer", "user", "assistant", "tool"]}
_IMAGE = _tagged("image_url", image_url={"anyOf": [_TEXT, _shape(("url",), url=_TEXT)]})
_AUDIO = _tagged("input_audio", input_audio=_shape(("data",), data=_TEXT))
_PART = _tagged("text", text=_TEXT)
_CALL = _shape(("function",), id=_TEXT, function=_shape(("name",), name=_TEXT, arguments=_TEXT))
_FUNCTION = _shape(("name",), name={"type": "string", "minLength": 1}, description=_TEXT, parameters=_OBJECT)

OPENAI_MESSAGES: Schema = {
    **_list(
        _shape(("role", "content"), role=_ROLES, content=_content(_PART, _IMAGE, _AUDIO), tool_call_id=_TEXT),
        _shape(("role", "tool_calls"), role={"enum": ["assistant"]}, tool_calls=_list(_CALL)),
    ),
    "minItems": 1,
}
OPENAI_TOOLS = _list(_tagged("function", function=_FUNCTION))

_ITEM_PART = _tagged("input_text", "output_text", text=_TEXT)
_ITEM_IMAGE = _tagged("input_image", image_url=_TEXT)
RESPONSES_INPUT: Schema = {
    "anyOf": [
        {"type": "null"},
        _TEXT,
        _list(
            _shape(("role", "content"), role=_ROLES, content=_content(_ITEM_PART, _ITEM_IMAGE)),
            _tagged("function_call", call_id=_TEXT, name=_TEXT),
            _tagged("function_call_output", call_id=_TEXT, output=_content(_ITEM_PART, _ITEM_IMAGE)),
            _tagged("reasoning", summary=_list(_tagged("summary_text", text=_TEXT))),
        ),
    ]
}
RESPONSES_TOOLS = _list(
    {**_FUNCTION, "properties": {**_FUNCTION["properties"], "type": {"enum": ["function"]}}},
    _tagged("namespace", name=_TEXT, tools=_list(_FUNCTION)),
)

_SOURCE = _tagged("base64", media_type=_TEXT, data=_TEXT)
_PICTURE = _tagged("image", source=_SOURCE)
_DOCUMENT = _tagged("document", source=_tagged("text", media_type=_TEXT, data=_TEXT))
_RESULT = _tagged("tool_result", tool_use_id=_TEXT, content=_content(_PART, _PICTURE, _DOCUMENT))
_USE = _tagged(
    "tool_use", id={"type": "string", "minLength": 1}, name={"type": "string", "minLength": 1}, input=_OBJECT
)
_THOUGHT = _tagged("thinking", thinking=_TEXT)
ANTHROPIC_MESSAGES: Schema = {
    **_list(
        _shape(
            ("role", "content"),
            role={"enum": ["user", "assistant"]},
            content=_content(_PART, _PICTURE, _DOCUMENT, _RESULT, _USE, _THOUGHT),
        )
    ),
    "minItems": 1,
}
ANTHROPIC_TOOLS = _list(
    _shape(("name",), name={"type": "string", "minLength": 1}, description=_TEXT, input_schema=_OBJECT)
)

"""Any text, cut anywhere, is read by any family without an error, and the cuts never show in the events."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import parser_for
from llm_engine.chat.parsing.events import Event, ToolCall, joined
from llm_engine.chat.parsing.family import FAMILIES, GENERIC, PLAIN, Family

TOOLS = (Tool("f", parameters={"properties": {"a": {"type": "string"}, "n": {"type": "integer"}}}),)
_COMMON = [
    *(
        '{"name": "f", "arguments": {"a": "x"}}',
        '{"a": 1',
        "}",
        "]",
        "[",
        '"',
        "\\",
        " ",
        "\n",
        "f",
        "text",
        "<",
    ),
    *("```json\n", "```", "call:f{a:1}", "<function=f>", "</function>", "<parameter=a>\nx\n</parameter>"),
    *(
        "<|start|>",
        "<|end|>",
        "<|channel|>",
        "<|message|>",
        "analysis",
        "final",
        "commentary to=functions.f ",
    ),
]


def pieces(family: Family) -> st.SearchStrategy[str]:
    tags = [*family.opens, *family.closes, *family.noise, *family.thinking]
    return st.lists(st.sampled_from([*tags, *_COMMON]) | st.text(max_size=3), max_size=14).map("".join)


def events(family: Family, parts: list[str], thinks: bool, tools: tuple[Tool, ...]) -> list[Event]:
    parser = parser_for(family, tools, thinks=thinks)
    found: list[Event] = []
    for part in parts:
        found += parser.feed(part)
    return joined(found + parser.finish())


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_any_text_cut_anywhere(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from([*FAMILIES, GENERIC, PLAIN]))
    text = data.draw(pieces(family))
    thinks, tools = data.draw(st.booleans()), data.draw(st.sampled_from([TOOLS, ()]))
    whole = events(family, [text], thinks, tools)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert events(family, parts, thinks, tools) == whole
    assert events(family, list(text), thinks, tools) == whole
    calls = [event for event in whole if isinstance(event, ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    for call in calls:
        assert json.loads(json.dumps(call.arguments, allow_nan=False)) is not None
    assert tools or not calls or family.name == "harmony"

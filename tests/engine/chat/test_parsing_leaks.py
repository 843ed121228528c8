"""No tag of a family reaches the content: with tools in force and without, wherever the answer ends, however
it is cut, and also where the model does not keep to its form."""

# ruff: noqa: E501 - a table of tags

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from llm_engine.chat.messages import Message, Tool
from llm_engine.chat.parsing import parser_for
from llm_engine.chat.parsing.events import Content, Event, ToolCall, joined
from llm_engine.chat.parsing.family import FAMILIES, GENERIC, Family

from tests.engine.chat.test_forcing import built, model_of
from tests.engine.chat.test_parsing_families import BY_NAME, SAMPLES, TOOLS, Sample

CALLS = [
    sample
    for sample in SAMPLES
    if any(isinstance(event, ToolCall) for event in sample.events)
    and (sample.family == "harmony" or any(tag in sample.text for tag in BY_NAME[sample.family].opens))
]
IDS = [f"{sample.family}-{at}" for at, sample in enumerate(CALLS)]
# What is a tag in any family's call, whole.
MARK = re.compile(
    r"</?(function|parameter|invoke|param|arg_key|arg_value|tool_call|TOOLCALL)[ =>]|</?｜DSML｜|<｜tool|\[TOOL_CALLS\]"
    r"|\[ARGS\]|<\|[a-zA-Z_:\"]+\|>|functools\[|<escape>|<(start|end)_function_call>|<\|?tool_call\|?>|minimax:|seed:"
)


def read(sample: Sample, tools: tuple[Tool, ...], *parts: str) -> list[Event]:
    parser = parser_for(BY_NAME[sample.family], tools, thinks=sample.thinks, prompt_tail=sample.prompt_tail)
    found: list[Event] = []
    for part in parts:
        found += parser.feed(part)
    return joined(found + parser.finish())


def content(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Content))


def outside(sample: Sample, text: str) -> str:
    """`text` without the arguments of the sample's calls, which may hold anything."""
    for event in sample.events:
        values = event.arguments.values() if isinstance(event, ToolCall) else ()
        for value in values:
            text = text.replace(json.dumps(value, ensure_ascii=False), "")
    return text


@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["in force", "none"])
@pytest.mark.parametrize("sample", CALLS, ids=IDS)
def test_an_answer_that_ends_anywhere_shows_no_tag(sample: Sample, tools: tuple[Tool, ...]) -> None:
    family = BY_NAME[sample.family]
    tags = [tag for tag in (*family.opens, *family.closes, *family.noise) if "```" not in tag]
    for end in range(1, len(sample.text) + 1):
        shown = outside(sample, content(read(sample, tools, sample.text[:end])))
        assert not any(tag in shown for tag in tags), (sample.text[:end], shown)
        assert not MARK.search(shown), (sample.text[:end], shown)


@pytest.mark.parametrize("sample", CALLS, ids=IDS)
def test_an_answer_that_was_cut_makes_no_call_of_half_of_one(sample: Sample) -> None:
    """At a limit or a text of the client's, the calls are the whole ones, with all their arguments."""
    made = [event for event in sample.events if isinstance(event, ToolCall)]
    family = BY_NAME[sample.family]
    tags = [tag for tag in (*family.opens, *family.closes, *family.noise) if "```" not in tag]
    for end in range(1, len(sample.text)):
        parser = parser_for(family, TOOLS, thinks=sample.thinks, prompt_tail=sample.prompt_tail)
        found = joined([*parser.feed(sample.text[:end]), *parser.finish(cut=True)])
        calls = [event for event in found if isinstance(event, ToolCall)]
        assert calls == made[: len(calls)], sample.text[:end]
        shown = outside(sample, content(found))
        assert not any(tag in shown for tag in tags) and not MARK.search(shown), (sample.text[:end], shown)


HALVES = {
    "qwen3-coder": "<tool_call>\n<function=write>\n<parameter=content>\nhalf of it",
    "hermes": '<tool_call>\n{"name":"write","arguments":{"content":"half of it',
    "llama3": '{"name":"write","parameters":{"content":"half of it',
    "mistral": '[TOOL_CALLS][{"name":"write","arguments":{"content":"half of it',
    "mistral-args": '[TOOL_CALLS]write[ARGS]{"content":"half of it',
    "glm": "<tool_call>write<arg_key>content</arg_key><arg_value>half of it",
    "minimax": '<minimax:tool_call><invoke name="write"><parameter name="content">half of it',
    "minicpm": '<function name="write"><param name="content">half of it',
    "gemma4": '<|tool_call>call:write{content:<|"|>half of it',
    "deepseek": '<｜tool▁call▁begin｜>write<｜tool▁sep｜>{"content":"half of it',
    "harmony": '<|channel|>commentary to=functions.write <|constrain|>json<|message|>{"content":"half of it',
    "lfm2": '<|tool_call_start|>[write(content="half of it',
}


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "ended"])
@pytest.mark.parametrize("name", HALVES)
def test_half_a_text_is_never_an_argument(name: str, cut: bool) -> None:
    parser = parser_for(BY_NAME[name], [Tool("write")], thinks=False)
    found = joined([*parser.feed(HALVES[name]), *parser.finish(cut=cut)])
    assert not any(isinstance(event, ToolCall) for event in found)
    assert "half of it" in content(found)


@pytest.mark.parametrize("sample", CALLS, ids=IDS)
def test_a_call_without_tools_is_told_as_json(sample: Sample) -> None:
    """However it is cut, the client gets all that the model said, and nothing it would take for a call."""
    whole = read(sample, (), sample.text)
    assert not any(isinstance(event, ToolCall) for event in whole)
    made = [event for event in sample.events if isinstance(event, ToolCall)]
    if sample.family == "apertus":  # its calls can be told by a tool's name alone
        made = []
    values = [
        json.JSONDecoder().raw_decode(content(whole), found.start())[0]
        for found in re.finditer(r'\{"name"', content(whole))
    ]
    assert [value["name"] for value in values] == [call.name for call in made]
    assert [list(value["arguments"]) for value in values] == [list(call.arguments) for call in made]
    assert read(sample, (), *sample.text) == whole, "one character at a time"
    for at in range(1, len(sample.text)):
        assert read(sample, (), sample.text[:at], sample.text[at:]) == whole, f"cut at {at}"


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.closes], ids=lambda f: f.name)
def test_a_closing_tag_too_many_vanishes(family: Family) -> None:
    closes = [tag for tag in family.closes if "```" not in tag]
    for tag in closes:
        for tools in (TOOLS, ()):
            parser = parser_for(family, tools, thinks=False)
            text = f"so {tag} it is"
            found = [event for char in text for event in parser.feed(char)] + parser.finish()
            assert tag not in content(found)


def test_a_tag_that_the_client_itself_wrote_is_its_own() -> None:
    """Some clients teach the model a form in their prompt, and read the answer themselves."""
    model = model_of("<tool_call>")
    text = 'Well. <tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    taught = [Message("system", "Call a function by <tool_call>{...}</tool_call>."), Message("user", "go")]
    for messages, shown in (
        (taught, text),
        ([Message("user", "go")], 'Well. {"name": "f", "arguments": {}}'),
    ):
        parser = built(model, messages=messages, tools=()).parser()
        assert content([*parser.feed(text), *parser.finish()]) == shown


def test_generic_json_is_no_tag() -> None:
    text = '{"name": "get_weather", "arguments": {"city": "P"}}'
    parser = parser_for(replace(GENERIC), (), thinks=False)
    assert [*parser.feed(text), *parser.finish()] == [Content(text)]

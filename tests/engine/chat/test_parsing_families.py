"""Each family's samples give the same events whole, cut at every character, and one character at a time."""

# ruff: noqa: E501 - a sample is what a model writes, and is read best in one piece

from __future__ import annotations

from dataclasses import dataclass

import pytest
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing.events import Content, Event, StreamParser, Thinking, ToolCall, joined
from llm_engine.chat.parsing.family import FAMILIES, GENERIC, Family
from llm_engine.chat.parsing.harmony import HarmonyParser
from llm_engine.chat.parsing.tagged import TaggedParser

WEATHER = Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
)
TIME = Tool("get_time", parameters={"type": "object", "properties": {"zone": {"type": "string"}}})
TOOLS = (WEATHER, TIME)
BY_NAME = {family.name: family for family in (*FAMILIES, GENERIC)}


@dataclass(frozen=True)
class Sample:
    family: str
    text: str
    events: list[Event]
    prompt_tail: str = ""
    thinks: bool = True
    tools: tuple[Tool, ...] = TOOLS


def call(name: str = "get_weather", index: int = 0, /, id: str = "", **arguments: object) -> ToolCall:
    return ToolCall(name, arguments, index, id)


SAMPLES = [
    # Mistral since v11
    Sample(
        "mistral-args",
        'Looking.[TOOL_CALLS]get_weather[ARGS]{"city": "Pa]ris"}[TOOL_CALLS]get_time[CALL_ID]a1[ARGS]{}',
        [Content("Looking."), call(city="Pa]ris"), call("get_time", 1, id="a1")],
    ),
    # Hermes, Qwen 2.5 and 3
    Sample(
        "hermes",
        '<think>\nhm\n</think>\n\nLooking.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        [Thinking("hm"), Content("Looking."), call(city="Paris")],
    ),
    Sample(
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"days": 2, "city": "a</tool_call>b"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n',
        [call(days=2, city="a</tool_call>b"), call("get_time", 1)],
    ),
    Sample(
        "hermes", "plain text, 1 < 2 and <b>bold</b>  \n", [Content("plain text, 1 < 2 and <b>bold</b>  \n")]
    ),
    Sample("hermes", "so\n</think>\n\nyes", [Thinking("so"), Content("yes")], prompt_tail="<think>\n"),
    Sample("hermes", "<think>\n\n</think>\n\nyes", [Content("yes")]),
    Sample("hermes", "<think>cut off", [Thinking("cut off")]),
    Sample("hermes", "a <tool_call> b", [Content("a b")]),
    Sample("hermes", "a <tool_call> b", [Content("a  b")], tools=()),
    Sample("hermes", "<tool_call>not a call at all</tool_call> ok", [Content("not a call at all ok")]),
    Sample(
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Par',
        [Content('{"name": "get_weather", "arguments": {"city": "Par')],  # of half a text nothing is known
    ),
    Sample(
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"',
        [call(city="Paris")],
    ),
    Sample(
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}</tool_call>',
        [call(city="Paris")],
    ),
    Sample(
        "hermes",
        "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Rome', 'tags': [None, True],}}</tool_call>",
        [call(city="Rome", tags=[None, True])],
    ),
    Sample(
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        [call(city="Oslo")],
    ),
    Sample(
        "hermes",
        "\n</think>\n\nyes, </think> stays after that",
        [Content("yes, </think> stays after that")],
        tools=(),
    ),
    Sample("llama3", '{"a": [' + "1, " * 300 + "2]}", [Content('{"a": [' + "1, " * 300 + "2]}")]),
    # Qwen coder
    Sample(
        "qwen3-coder",
        "I will look.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\nTexas\n</parameter>\n"
        '<parameter=days>\n3\n</parameter>\n<parameter=tags>\n["a"]\n</parameter>\n</function>\n</tool_call>',
        [Content("I will look."), call(city="Paris\nTexas", days=3, tags=["a"])],
    ),
    Sample(
        "qwen3-coder",
        "<function=get_weather>\n<parameter=city>\n42\n</parameter>\n</function>\n</tool_call>",
        [call(city="42")],
    ),
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\na</tool_call>b\n</parameter>\n</function>\n</tool_call>",
        [call(city="a</tool_call>b")],
    ),
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</tool_call>",
        [call(city="Paris")],
    ),
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n<a>\n</function>\n</tool_call>\n<parameter=x> rest\n"
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=get_time>\n</function>\n</tool_call>",
        [call(city="<a>\n</function>\n</tool_call>\n<parameter=x> rest"), call("get_time", 1)],
    ),
    Sample(
        "qwen3-coder",
        '<function=get_weather>{"city": "</function>"}</function></tool_call>ok',
        [call(city="</function>"), Content("ok")],
    ),
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nhalf of it",
        [Content("\n\n\nhalf of it")],
    ),
    # GLM
    Sample(
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>a</tool_call>b<arg_key></arg_value>\n</tool_call>",
        [call(city="a</tool_call>b<arg_key>")],
    ),
    Sample(
        "glm", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Par", [Content("get_weathercityPar")]
    ),
    Sample(
        "glm",
        "<think>x</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        [Thinking("x"), call(city="Paris", days=2)],
    ),
    # Llama 3
    Sample("llama3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', [call(city="Paris")]),
    Sample(
        "llama3",
        '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        [call(city="Paris")],
    ),
    Sample(
        "llama3",
        '{"name": "get_weather", "parameters": {"city": "A"}}; {"name": "get_time", "parameters": {}}',
        [call(city="A"), call("get_time", 1)],
    ),
    Sample("llama3", '{"name": "Bob", "age": 3}', [Content('{"name": "Bob", "age": 3}')]),
    Sample("llama3", '{"a": [1, 2]} and more', [Content('{"a": [1, 2]} and more')]),
    Sample("llama3", "[1] is a footnote", [Content("[1] is a footnote")]),
    Sample(
        "llama3",
        '[1] is a footnote <|python_tag|>{"name": "get_time", "parameters": {}}',
        [Content("[1] is a footnote"), call("get_time")],
    ),
    Sample(
        "functionary",
        '<function=get_weather>{<|"|>"city": "P"}</function>ok',
        [Content('get_weather>{"city": "P"}ok')],
    ),
    # Mistral
    Sample(
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"},'
        ' {"name": "get_time", "arguments": {}}]',
        [call(city="Paris", id="abcdefghi"), call("get_time", 1)],
    ),
    Sample(
        "mistral",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "]["}[TOOL_CALLS]get_time[CALL_ID]123456789[ARGS]{"zone": "Z"}',
        [call(city="]["), call("get_time", 1, zone="Z", id="123456789")],
    ),
    Sample("mistral", "[THINK]a[/THINK]b [1]", [Thinking("a"), Content("b [1]")]),
    # DeepSeek
    Sample(
        "deepseek",
        "<think>a</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{}\n'
        "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [Thinking("a"), call(city="Paris"), call("get_time", 1)],
    ),
    Sample(
        "deepseek",
        'ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [Content("ok"), call(city="Rome")],
    ),
    Sample(
        "deepseek-dsml",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">7'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        [call(city="7", days=2)],
    ),
    # gpt-oss
    Sample(
        "harmony",
        "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        [Thinking("Need it."), call(city="Paris")],
    ),
    Sample(
        "harmony",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>One moment.<|end|>"
        "<|start|>assistant to=functions.get_time<|channel|>commentary<|message|>{}",
        [Thinking("a"), Content("One moment."), call("get_time")],
    ),
    Sample("harmony", "<|channel|>final<|message|>Hello < you<|return|>", [Content("Hello < you")]),
    Sample("harmony", "Just text", [Content("Just text")]),
    Sample("harmony", "<|channel|>" + "so " * 200, [Content("so " * 200)]),  # a header that never ends
    Sample("harmony", "<|channel|>final<|message|>a<|message|>b<|constrain|>c", [Content("abc")]),
    Sample(
        "harmony",
        "more</x>",
        [Content("more</x>")],
        prompt_tail="<|start|>assistant<|channel|>final<|message|>",
    ),
    # Gemma
    Sample(
        "gemma4",
        '<|channel>thought\nHm.<channel|><|tool_call>call:get_weather{city:<|"|>a "b", c: d<|"|>,days:3}<tool_call|>',
        [Thinking("Hm."), call(city='a "b", c: d', days=3)],
    ),
    Sample(
        "functiongemma",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,tags:[<escape>x<escape>]}<end_function_call>",
        [call(city="Paris", tags=["x"])],
    ),
    # Granite
    Sample(
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        [call(city="Paris")],
    ),
    Sample("granite", "<think>a</think><response>b</response>", [Thinking("a"), Content("b")]),
    # Command R
    Sample(
        "command-r7b",
        '<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "get_weather", '
        '"parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
        [Thinking("I look."), call(city="Paris", id="0")],
    ),
    Sample("command-r7b", "<|START_RESPONSE|>Hi.<|END_RESPONSE|>", [Content("Hi.")]),
    Sample(
        "command-r",
        'Action: ```json\n[{"tool_name": "get_weather", "parameters": {"city": "Paris"}}]\n```',
        [call(city="Paris")],
    ),
    # Others
    Sample(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>',
        [call(city="Paris", id="functions.get_weather:0")],
    ),
    Sample(
        "lfm2",
        '<|tool_call_start|>[get_weather(city="Paris", tags=["a"]), get_time()]<|tool_call_end|>Done',
        [call(city="Paris", tags=["a"]), call("get_time", 1), Content("Done")],
    ),
    Sample(
        "olmo3",
        '<function_calls>\nget_weather(city="Paris", days=1)\nget_time(zone=null)\n</function_calls>',
        [call(city="Paris", days=1), call("get_time", 1, zone=None)],
    ),
    Sample(
        "minimax",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n'
        "</minimax:tool_call>",
        [call(city="Paris")],
    ),
    Sample(
        "minimax",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">a</invoke></minimax:tool_call>'
        '<parameter name="x"></parameter>\n</invoke>\n<invoke name="get_time">\n</invoke>\n</minimax:tool_call>',
        [call(city='a</invoke></minimax:tool_call><parameter name="x">'), call("get_time", 1)],
    ),
    Sample(
        "seed-oss",
        "<seed:think>a</seed:think><seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "</function>\n</seed:tool_call>",
        [Thinking("a"), call(city="Paris")],
    ),
    Sample("functionary", '<function=get_weather>{"city": "Paris"}</function>', [call(city="Paris")]),
    Sample("nemotron", '<TOOLCALL>[{"name": "get_time", "arguments": {}}]</TOOLCALL>', [call("get_time")]),
    Sample("firefunction", ' functools[{"name": "get_time", "arguments": {}}]', [call("get_time")]),
    Sample(
        "apertus",
        '<|tools_prefix|>[{"get_time": {"zone": "Z"}}]<|tools_suffix|>',
        [call("get_time", zone="Z")],
    ),
    Sample(
        "tool-calls",
        '<tool_calls>\n{"name": "get_time", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "P"}}\n'
        "</tool_calls>",
        [call("get_time"), call("get_weather", 1, city="P")],
    ),
    Sample(
        "solar-open",
        '<|tool_call:begin|>x1<|tool_call:name|>get_time<|tool_call:args|>{"zone": "Z"}<|tool_call:end|>',
        [call("get_time", id="x1", zone="Z")],
    ),
    Sample(
        "minicpm",
        '<function name="get_weather"><param name="city"><![CDATA[a<b]]></param><param name="days">2</param></function>',
        [call(city="a<b", days=2)],
    ),
    Sample(
        "minicpm",
        '<function name="get_weather"><param name="city">a</function>b<![CDATA[</param>]]>c</param></function>',
        [call(city="a</function>b</param>c")],
    ),
    Sample(
        "deepseek",
        '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "```<｜tool▁call▁end｜>"}<｜tool▁call▁end｜>',
        [call(city="```<｜tool▁call▁end｜>")],
    ),
    Sample(
        "gemma4",
        '<|tool_call>call:get_weather{city:<|"|>a<tool_call|>b<|"|>}<tool_call|>',
        [call(city="a<tool_call|>b")],
    ),
    Sample(
        "lfm2",
        "<|tool_call_start|>[get_weather(city='it\"s', tags=[])]<|tool_call_end|>Done",
        [call(city='it"s', tags=[]), Content("Done")],
    ),
    Sample(
        "lfm2",
        '<|tool_call_start|>[get_weather(city="if (a[0] == \'{\\") {<|tool_call_end|>", tags=[\'"{\'])]<|tool_call_end|>'
        '<|tool_call_start|>[get_time(zone="[")]<|tool_call_end|>Done',
        [
            call(city="if (a[0] == '{\") {<|tool_call_end|>", tags=['"{']),
            call("get_time", 1, zone="["),
            Content("Done"),
        ],
    ),
    Sample(
        "olmo3",
        '<function_calls>\nget_weather(city="a</function_calls>{", days=1)\nget_time(zone=\'it"s\')\n</function_calls>!',
        [call(city="a</function_calls>{", days=1), call("get_time", 1, zone='it"s'), Content("!")],
    ),
    # No family
    Sample("generic", '```json\n{"name": "get_weather", "arguments": {"city": "P"}}\n```', [call(city="P")]),
    Sample("generic", '{"get_weather": {"city": "P"}}', [call(city="P")]),
    Sample("generic", "```json\n[1, 2]\n```\nThat.", [Content("```json\n[1, 2]\n```\nThat.")]),
    Sample("generic", '{"name": "get_weather"}', [Content('{"name": "get_weather"}')]),
]


def parser(sample: Sample) -> StreamParser:
    if sample.family == "harmony":
        return HarmonyParser(sample.tools, prompt_tail=sample.prompt_tail)
    family: Family = BY_NAME[sample.family]
    opened = sample.prompt_tail.rstrip().endswith(family.thinking[0])
    return TaggedParser(family, sample.tools, thinks=sample.thinks, thinking_open=opened)


def events(sample: Sample, *parts: str) -> list[Event]:
    one = parser(sample)
    found: list[Event] = []
    for part in parts:
        found += one.feed(part)
    return joined(found + one.finish())


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.family}-{at}" for at, s in enumerate(SAMPLES)])
def test_a_sample_gives_the_same_events_however_it_is_cut(sample: Sample) -> None:
    assert events(sample, sample.text) == sample.events
    assert events(sample, *sample.text) == sample.events, "one character at a time"
    for at in range(1, len(sample.text)):
        assert events(sample, sample.text[:at], sample.text[at:]) == sample.events, f"cut at {at}"


def test_every_family_has_a_sample() -> None:
    assert {sample.family for sample in SAMPLES} == set(BY_NAME)

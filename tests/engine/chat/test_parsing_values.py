"""Values that were written as text, and how long it takes to read what was made to be slow."""

from __future__ import annotations

import time
from typing import Any

import pytest
from llm_engine.chat.messages import Tool
from llm_engine.chat.parsing import parser_for, repair
from llm_engine.chat.parsing.values import coerce

from tests.engine.chat.test_parsing_families import BY_NAME

OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "90210", "90210"),
        (OPTIONAL, "90210", "90210"),
        (OPTIONAL, "true", "true"),
        (OPTIONAL, '{"a": 1}', '{"a": 1}'),
        (OPTIONAL, "null", None),
        (OPTIONAL, "None", "None"),
        ({"type": ["string", "null"]}, '{"a": 1}', '{"a": 1}'),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": "string", "nullable": True}, "null", None),
        ({"type": ["string", "integer"]}, "7", 7),
        ({"type": ["string", "integer"]}, "007", "007"),
        ({"type": ["string", "integer"]}, "7.5", "7.5"),
        ({"oneOf": [{"type": "string"}, {"type": "array"}]}, '["a"]', ["a"]),
        ({"oneOf": [{"type": "string"}, {"type": "array"}]}, "{}", "{}"),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": ["1", None]}, "null", None),
        ({"enum": [1, 2]}, "1", 1),
        ({"const": "true"}, "true", "true"),
        ({"type": "integer"}, "7", 7),
        ({"type": "boolean"}, "TRUE", True),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({"type": "number"}, "1e400", "1e400"),
        ({}, '{"a": 1}', {"a": 1}),
        ({"anyOf": 3, "enum": 4, "type": 5}, "7", 7),
        (None, "7", 7),
    ],
)
def test_a_text_stays_one_where_the_schema_takes_it(schema: Any, text: str, value: Any) -> None:
    found = coerce(text, schema)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", ['{"n": 1e400}', '{"n": -1e999}', "{'n': 1e400}", '{"n": Infinity}', '{"n": 1e400']
)
def test_what_no_number_holds_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        repair.loads(text)


@pytest.mark.parametrize(
    "call", ["f(a=1e400)", "f(a={1, 2})", "f(a=b'x')", "f(a=2j)", "f(a=-'x')", "f(a=...)"]
)
def test_what_json_cannot_say_is_no_call(call: str) -> None:
    parser = parser_for(BY_NAME["lfm2"], [Tool("f")], thinks=False)
    text = f"<|tool_call_start|>[{call}]<|tool_call_end|>"
    assert not any(hasattr(event, "arguments") for event in [*parser.feed(text), *parser.finish()])


def text_of(case: str, count: int) -> str:
    hermes = '<tool_call>{"name": "f", "arguments": {"a": "' + "</tool_call>" * count + '"}}</tool_call>'
    return {
        "minimax": "<minimax:tool_call>" + '<invoke name="a">' * count + "</minimax:tool_call>",
        "minimax values": "<minimax:tool_call>" + '<parameter name="a">' * count + "</minimax:tool_call>",
        "glm": "<tool_call>f" + "<arg_key>a" * count + "</tool_call>",
        "hermes": hermes,
        "qwen3-coder": "<tool_call>" + "<function=a><parameter=b>" * count + "</tool_call>",
        "command-r": 'Action: ```json\n[{"tool_name": "f", "parameters": {"a": "'
        + "```" * count
        + '"}}]\n```',
        "deepseek": "<｜tool▁call▁begin｜>f<｜tool▁sep｜>" + "``` " * count + "<｜tool▁call▁end｜>",
        "mistral": "[TOOL_CALLS]" + "word " * count,
        "llama3": '{"name": "f", "parameters": {}}' + "\n" * count * 4,
        "gemma4": "<|tool_call>call:f{" + 'a:<|"|>{[' * count + "<tool_call|>",
    }[case]


def seconds(case: str, count: int) -> float:
    parser = parser_for(BY_NAME[case.split()[0]], [Tool("f")], thinks=False)
    text = text_of(case, count)
    started = time.thread_time()
    for at in range(0, len(text), 16):
        parser.feed(text[at : at + 16])
    parser.finish()
    return time.thread_time() - started


@pytest.mark.parametrize(
    "case",
    [
        "minimax", "minimax values", "glm", "hermes", "qwen3-coder", "command-r", "deepseek", "mistral",
        "llama3", "gemma4",
    ],
)  # fmt: skip
def test_reading_takes_as_long_as_the_text(case: str) -> None:
    """Eight times the text took sixty-four times as long, seconds for one answer."""
    short = min(seconds(case, 500) for _ in range(3))
    assert min(seconds(case, 4000) for _ in range(3)) < 24 * short + 0.01

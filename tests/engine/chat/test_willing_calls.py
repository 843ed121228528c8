"""Calls that a model makes of its own will: a grammar sleeps until one begins, then holds it to its tool."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_engine.chat import forcing, prompt
from llm_engine.chat.messages import Message, Tool
from llm_engine.chat.parsing.events import ToolCall
from llm_engine.chat.parsing.family import FAMILIES
from llm_engine.models.scripted import build
from llm_engine.runner import library
from llm_engine.runner.constraint import CANDIDATE, Constraint
from llm_engine.runner.grammar import constraint_factory
from llm_engine.runner.messages import Grammar, LoadSpec
from llm_engine.runner.vocab import Vocab

from tests.engine.chat.test_forcing import END, FIRST_BYTE, built, model_of

TOOLS = (
    Tool(
        "move",
        parameters={
            "type": "object",
            "properties": {
                "x": {"type": "integer", "maximum": 3},
                "how": {"type": "string", "enum": ["fast", "slow"]},
                "note": {"type": "string"},
            },
            "required": ["x"],
        },
    ),
    Tool("stop"),
)
ARGUMENTS = {"x": 2, "how": "slow", "note": "a <b> }"}
JSON = '{"x": 2, "how": "slow", "note": "a <b> }"}'
TAGS = (
    "<parameter=x>\n2\n</parameter>\n<parameter=how>\nslow\n</parameter>\n"
    "<parameter=note>\na <b> }\n</parameter>"
)
NAMED = '{"name": "move", "arguments": ' + JSON + "}"
# A family's mark: what its models write.
CALLS = {
    "harmony": [
        "<|channel|>commentary to=functions.move <|constrain|>json<|message|>" + JSON,
        " to=functions.move<|channel|>commentary json<|message|>" + JSON,
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.move <|constrain|>json<|message|>" + JSON,
    ],
    "deepseek": [
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>move<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Well.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>move\n```json\n"
        f"{JSON}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ],
    "kimi": [
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.move:0<|tool_call_argument_begin|>"
        f"{JSON}<|tool_call_end|><|tool_calls_section_end|>"
    ],
    "mistral-args": [f"[TOOL_CALLS]move[ARGS]{JSON}", f"[TOOL_CALLS]move[CALL_ID]a1b2c3d4e[ARGS]{JSON}"],
    "mistral": [f"[TOOL_CALLS] [{NAMED}]", f"[TOOL_CALLS][{NAMED}]"],
    "command-r7b": [
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "move", "parameters": '
        f"{JSON}}}\n]<|END_ACTION|>"
    ],
    "command-r": [f'Action: ```json\n[\n    {{"tool_name": "move", "parameters": {JSON}}}\n]\n```'],
    "gemma4": [
        '<|tool_call>call:move{how:<|"|>slow<|"|>,note:<|"|>a <b> }<|"|>,x:2}<tool_call|>',
        'Well.<|tool_call>call:move{x: 2, how: <|"|>slow<|"|>, note: <|"|>a <b> }<|"|>}<tool_call|>',
    ],
    "functiongemma": [
        "<start_function_call>call:move{how:<escape>slow<escape>,note:<escape>a <b> }<escape>,x:2}"
        "<end_function_call>"
    ],
    "nemotron": [f"<TOOLCALL>[{NAMED}]</TOOLCALL>"],
    "firefunction": [f"functools[{NAMED}]"],
    "granite": [f"<|tool_call|>[{NAMED}]"],
    "functionary": [f"I do.<function=move>{JSON}</function>"],
    "solar-open": [f"<|tool_call:begin|>a1b2<|tool_call:name|>move<|tool_call:args|>{JSON}<|tool_call:end|>"],
    "qwen3-coder": [
        f"I move.\n\n<tool_call>\n<function=move>\n{TAGS}\n</function>\n</tool_call>",
        f"<function=move>\n{TAGS}\n</function>\n</tool_call>",
    ],
    "seed-oss": [f"<seed:tool_call>\n<function=move>\n{TAGS}\n</function>\n</seed:tool_call>"],
    "hermes": [
        f"Let me.\n<tool_call>\n{NAMED}\n</tool_call>",
        f'<tool_call>{{"name":"move","arguments":{JSON}}}</tool_call>',
        f'<tool_call>\n{{\n  "name": "move",\n  "parameters": {JSON}\n}}\n</tool_call>',
    ],
    "llama3": [
        '{"name": "move", "parameters": ' + JSON + "}",
        '<|python_tag|>{"name": "move", "parameters": ' + JSON + "}",
    ],
    "generic": [NAMED, '\n{"name":"move","parameters":' + JSON + "}"],
}
# What is no call, in any family: no grammar wakes.
PLAIN = [
    "Hello.",
    'As JSON: {"name": "Ann", "arguments": 3}',
    '{"name": "Ann"}',
    "The tag is `<tool_call>`.",
    "a < b",
]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    from llm_engine.runner.model import Model

    library.start()
    path: Path = build(tmp_path_factory.mktemp("gguf") / "any.gguf", {None: "x"})
    model = Model(LoadSpec(str(path)), lambda _: True)
    yield Vocab(model.handle)
    model.free()


def refused_at(vocab: Vocab, grammar: Grammar, text: str) -> tuple[str | None, bool]:
    """What was said when a token was refused (None: all was taken), and whether the grammar woke."""
    constraint = constraint_factory(vocab, grammar)()
    said = b""
    try:
        for token in [*(FIRST_BYTE + byte for byte in text.encode()), END]:
            if not constraint.allows(token):
                return said.decode(), not constraint.asleep
            constraint.accept(token)
            said += bytes([token - FIRST_BYTE]) if token != END else b""
        return None, not constraint.asleep
    finally:
        constraint.close()


def base_of(name: str, **options: bool) -> prompt.BuiltPrompt:
    marks = {"generic": (" ",), "llama3": ("<|start_header_id|>",)}.get(name)
    if marks is None:
        marks = next(tuple(family.marks[0]) for family in FAMILIES if family.name == name)
    tail = "<|channel|> <|message|> <|start|>assistant" if name == "harmony" else " ".join(marks) + " "
    base = built(model_of(tail), **options)
    assert base.family.name == name
    return base


def held(base: prompt.BuiltPrompt, *, several: bool = False) -> Grammar:
    grammar = forcing.willing_call(base, TOOLS, several=several)
    assert grammar is not None and grammar.lazy
    return grammar


SAID = [(name, text) for name, texts in CALLS.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), SAID, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SAID)])
def test_a_call_as_the_family_writes_it_passes_and_a_wrong_one_does_not(
    vocab: Vocab, name: str, text: str
) -> None:
    base = base_of(name, think=False)
    grammar = held(base)
    assert refused_at(vocab, grammar, text) == (None, True)
    parser = prompt.build(base.model, [Message("user", "hi")], tools=TOOLS, think=False).parser()
    calls = [event for event in [*parser.feed(text), *parser.finish()] if isinstance(event, ToolCall)]
    assert [call.name for call in calls if call.name == "move"] == ["move"]
    assert calls[0].arguments == ARGUMENTS
    for right, wrong in (("2", "7"), ("slow", "slower"), ('"x"', '"y"'), ("=x>", "=y>"), ("2", '"2"')):
        if right in text:
            said, woke = refused_at(vocab, grammar, text.replace(right, wrong))
            assert said is not None and woke
    said, _ = refused_at(vocab, grammar, text.replace("move", "mive"))
    # A bare call is known by a tool's name alone; all others are held to the names as well.
    assert (said is None) == (name in ("llama3", "generic"))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("text", PLAIN)
def test_other_text_wakes_nothing(vocab: Vocab, name: str, text: str) -> None:
    assert refused_at(vocab, held(base_of(name, think=False)), text) == (None, False)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "harmony"])
def test_a_second_call_passes_where_the_client_takes_several(vocab: Vocab, name: str) -> None:
    base = base_of(name, think=False)
    text = CALLS[name][0]
    form = base.family.form
    assert form is not None
    start = text.index(NAMED[:8]) if NAMED in text and form.end else None
    if start is not None:
        twice = text.replace(NAMED, NAMED + ", " + NAMED)
    elif name in ("command-r7b", "command-r"):
        body = text[text.index("{") : text.rindex("}") + 1]
        twice = text.replace(body, body + ", " + body)
    elif form.end:
        inner = text[text.index("<", 2) : text.rindex("<")].removeprefix(form.open)
        twice = text.replace(inner, inner + inner)
    else:
        mark = next(
            tag
            for tag in (
                "<start_function_call>",
                "<tool_call>",
                "<seed:tool_call>",
                "[TOOL",
                "<function=",
                "<|tool",
                "{",
            )
            if tag in text
        )
        body = text[text.index(mark) :]
        twice = text + ("; " if name == "llama3" else "") + body
    assert refused_at(vocab, held(base, several=True), twice) == (None, True)
    said, woke = refused_at(vocab, held(base), twice)
    assert said is not None and woke


def test_what_the_model_only_considers_wakes_nothing(vocab: Vocab) -> None:
    base = built(model_of("<tool_call> </think>"))
    grammar = held(base)
    wrong = '<tool_call>\n{"name": "mive"'
    assert refused_at(vocab, grammar, f"<think>{wrong}</think>no") == (None, False)
    said, _ = refused_at(vocab, grammar, f"<think>{wrong}</think>{wrong}")
    assert said == f"<think>{wrong}</think>" + wrong[: wrong.index("mive") + 1]
    opened = held(built(model_of("<tool_call>", "<think>\n")))
    assert refused_at(vocab, opened, f"{wrong}</think>no") == (None, False)
    said, _ = refused_at(vocab, opened, f"{wrong}</think>{wrong}")
    assert said is not None


def test_a_bare_call_is_held_behind_thinking(vocab: Vocab) -> None:
    grammar = held(built(model_of(" </think>")))
    call = '{"name": "move", "arguments": {"x": '
    assert refused_at(vocab, grammar, f"<think>{call}9</think>\n\n{call}2}}}}") == (None, True)
    said, woke = refused_at(vocab, grammar, f"<think>hm</think>\n\n{call}9")
    assert said is not None and said.endswith(call) and woke


def test_a_schema_that_makes_no_sense_holds_its_call_to_any_object(vocab: Vocab) -> None:
    odd = (Tool("move", parameters={"type": "object", "properties": {"x": {"type": "nonsense"}}}), *TOOLS[1:])
    grammar = forcing.willing_call(base_of("hermes", think=False), odd, several=False)
    assert grammar is not None
    assert refused_at(vocab, grammar, CALLS["hermes"][0]) == (None, True)
    said, _ = refused_at(vocab, grammar, CALLS["hermes"][0].replace(JSON, "[]"))
    assert said is not None


SLOPPY: list[dict[str, Any]] = [
    {"type": "object", "properties": {"x": {"type": "integer"}}, "required": None},
    {"type": "object", "properties": {"x": {"type": "integer"}}, "required": True},
    {"type": "object", "properties": {"x": {"type": "integer", "minimum": "0"}}},
    {"type": "object", "anyOf": [{"$ref": "#"}]},
    {"type": "object", "properties": {"x": {"type": "array", "prefixItems": 5}}},
    {"type": "object", "properties": {"x": {"allOf": 5}}},
    {"type": "object", "properties": {"x": {"type": "string", "format": ["date"]}}},
    {"type": "object", "properties": {"x": {"allOf": [{"$ref": "#/a"}]}}, "a": {"$ref": "#/a"}},
    {"type": "object", "properties": None, "required": 3},
    {"properties": 7},
]


@pytest.mark.parametrize("name", ["hermes", "qwen3-coder", "seed-oss", "gemma4", "llama3"])
@pytest.mark.parametrize("parameters", SLOPPY, ids=range(len(SLOPPY)))
def test_a_sloppy_schema_is_held_to_something_or_refused_by_name(name: str, parameters: Any) -> None:
    """Whoever leaves the call to the model gets it, whatever the schema; a call that must be made is refused
    where the schema says nothing that can be held.
    """
    base, tools = base_of(name, think=False), [Tool("move", parameters=parameters)]
    assert forcing.willing_call(base, tools, several=False) is not None
    with contextlib.suppress(ValueError):
        forcing.tool_call(base, tools, room=False)


def test_more_tools_than_a_grammar_may_hold_are_not_held() -> None:
    fields = {f"field_{at}": {"type": "string", "maxLength": at} for at in range(1500)}
    tools = [Tool(f"tool_{at}", parameters={"type": "object", "properties": fields}) for at in range(8)]
    base = base_of("hermes", think=False)
    assert forcing.willing_call(base, tools[:1], several=False) is not None
    assert forcing.willing_call(base, tools, several=False) is None
    with pytest.raises(ValueError, match="the tools need a grammar of more than"):
        forcing.tool_call(base, tools, room=False)
    assert forcing.tool_call(base, tools, "tool_3", room=False).gbnf


def seconds_of(vocab: Vocab, constraint: Constraint, count: int) -> float:
    token = FIRST_BYTE + ord("<")
    started = time.perf_counter()
    for _ in range(count):
        assert constraint.allows(token)
        constraint.accept(token)
    return time.perf_counter() - started


def test_a_sleeping_grammar_costs_no_more_in_a_long_answer(vocab: Vocab) -> None:
    constraint = constraint_factory(vocab, held(base_of("hermes")))()
    first = min(seconds_of(vocab, constraint, 1000) for _ in range(3))
    seconds_of(vocab, constraint, 40_000)
    last = min(seconds_of(vocab, constraint, 1000) for _ in range(3))
    constraint.close()
    # Looked at anew each time, 40,000 bytes would take forty times as long as 1,000.
    assert last < 6 * first


def refused_in(vocab: Vocab, tools: Sequence[Tool]) -> float:
    """Processor time to look for what is allowed at each place of a call, for the whole vocabulary."""
    form = forcing.tool_call(base_of("hermes", think=False), tools, room=False)
    constraint = constraint_factory(vocab, Grammar(gbnf=form.gbnf, root=form.root))()
    spent = 0.0
    for byte in b'<tool_call>\n{"name": "tool_':
        candidates = np.zeros(vocab.size, dtype=CANDIDATE)
        candidates["id"] = np.arange(vocab.size)
        started = time.thread_time()
        constraint.strike(candidates)
        spent += time.thread_time() - started
        constraint.accept(FIRST_BYTE + byte)
    constraint.close()
    return spent


def test_two_hundred_tools_cost_little_more_than_one(vocab: Vocab) -> None:
    """With a choice for each tool from the first letter on, they took two hundred times as long."""
    fields = {f"field_{at}": {"type": "string"} for at in range(4)}
    tools = [Tool(f"tool_{at}", parameters={"type": "object", "properties": fields}) for at in range(200)]
    one, all_of_them = (min(refused_in(vocab, tools[:count]) for _ in range(5)) for count in (1, 200))
    assert all_of_them < 12 * one + 0.002

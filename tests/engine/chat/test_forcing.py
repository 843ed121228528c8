"""Forced answers: llama.cpp's own matcher takes what may be said, and the parser reads it back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.chat import forcing, prompt
from llm_engine.chat.gbnf import up_to
from llm_engine.chat.messages import Message, Tool
from llm_engine.chat.model import ChatModel
from llm_engine.chat.parsing.events import Content, Event, Thinking, ToolCall, joined
from llm_engine.chat.parsing.family import FAMILIES, Family
from llm_engine.chat.parsing.forms import BARE
from llm_engine.models.scripted import build
from llm_engine.runner.grammar import constraint_factory
from llm_engine.runner.messages import Grammar, LoadSpec
from llm_engine.runner.vocab import Vocab

FIRST_BYTE, END = 3, 2
TOOLS = (
    Tool("get_weather", parameters={"properties": {"city": {"type": "string"}}, "required": ["city"]}),
    Tool("get_time", parameters={"type": "object", "properties": {}}),
)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    from llm_engine.runner import library
    from llm_engine.runner.model import Model

    library.start()
    path: Path = build(tmp_path_factory.mktemp("gguf") / "any.gguf", {None: "x"})
    model = Model(LoadSpec(str(path)), lambda _: True)
    yield Vocab(model.handle)
    model.free()


def accepts(vocab: Vocab, grammar: Grammar, text: str) -> bool:
    constraint = constraint_factory(vocab, grammar)()
    try:
        for token in [*(FIRST_BYTE + byte for byte in text.encode()), END]:
            if not constraint.allows(token):
                return False
            constraint.accept(token)
        return True
    finally:
        constraint.close()


def model_of(mark: str, tail: str = "") -> ChatModel:
    """A model whose template carries the marks of a family and can think when asked."""
    source = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}"
        "{% if enable_thinking %} {% endif %}" + mark + tail
    )
    return ChatModel("x", jinja_source=source)


def built(
    model: ChatModel,
    think: bool | None = None,
    messages: Sequence[Message] = (Message("user", "hi"),),
    tools: Sequence[Tool] = TOOLS,
) -> prompt.BuiltPrompt:
    return prompt.build(model, messages, tools=tools, think=think)


def read(form: forcing.Forced, text: str) -> list[Event]:
    parser = form.parser()
    return joined([*parser.feed(text), *parser.finish()])


def forced_call(base: prompt.BuiltPrompt, name: str, *arguments: str) -> str:
    """Calls as the family's form says that they are written."""
    form = base.family.form or BARE
    calls = [
        form.call.replace("{name}", name).replace("{number}", str(number)).replace("{id}", f"id{number}")
        + given
        + form.after
        for number, given in enumerate(arguments)
    ]
    return form.open + (form.between or "").join(calls) + form.close


MARKED = [family for family in FAMILIES if family.name != "llama3"]


@pytest.mark.parametrize("family", MARKED, ids=[family.name for family in MARKED])
def test_a_forced_call_is_taken_and_read_in_every_family(vocab: Vocab, family: Family) -> None:
    base = built(model_of(" ".join(family.marks[0]) + " "), think=False)
    form = forcing.tool_call(base, TOOLS, "get_weather")
    grammar = Grammar(gbnf=form.gbnf, root=form.root)
    text = forced_call(base, "get_weather", '{"city": "a \\"b\\" </tool_call> }"}')
    assert accepts(vocab, grammar, text)
    (call,) = read(form, text)
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("get_weather", {"city": 'a "b" </tool_call> }'})
    for wrong in (
        "Hello",
        text[:-1],
        text.replace("get_weather", "get_time"),
        text.replace("city", "town"),
        "",
    ):
        assert not accepts(vocab, grammar, wrong), wrong


@pytest.mark.parametrize("family", MARKED, ids=[family.name for family in MARKED])
def test_several_calls_may_be_made_where_the_client_takes_them(vocab: Vocab, family: Family) -> None:
    base = built(model_of(" ".join(family.marks[0]) + " "), think=False)
    one, two = (
        Grammar(gbnf=form.gbnf, root=form.root)
        for form in (forcing.tool_call(base, TOOLS, several=several) for several in (False, True))
    )
    text = forced_call(base, "get_weather", '{"city": "a"}', '{"city": "b"}')
    assert not accepts(vocab, one, text)
    assert accepts(vocab, one, forced_call(base, "get_weather", '{"city": "a"}'))
    if base.family.form is not None and base.family.form.between is None:
        assert not accepts(vocab, two, text)
        return
    assert accepts(vocab, two, text)
    calls = read(forcing.tool_call(base, TOOLS, several=True), text)
    assert [(call.name, call.arguments) for call in calls if isinstance(call, ToolCall)] == [
        ("get_weather", {"city": "a"}),
        ("get_weather", {"city": "b"}),
    ]


def test_any_of_the_tools_may_be_called(vocab: Vocab) -> None:
    form = forcing.tool_call(built(model_of("<tool_call>"), think=False), TOOLS)
    grammar = Grammar(gbnf=form.gbnf, root=form.root)
    assert accepts(vocab, grammar, '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>')
    assert not accepts(vocab, grammar, '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>')


CALL = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


def test_thinking_may_come_first_and_never_replaces_the_call(vocab: Vocab) -> None:
    form = forcing.tool_call(built(model_of("<tool_call> </think>")), TOOLS)
    grammar = Grammar(gbnf=form.gbnf, root=form.root)
    thought = "<think>a < b </thin </tool_call> <</think>\n\n"
    assert accepts(vocab, grammar, thought + CALL)
    assert accepts(vocab, grammar, CALL)
    assert not accepts(vocab, grammar, thought)
    assert not accepts(vocab, grammar, thought + "no")
    assert read(form, thought + CALL) == [Thinking("a < b </thin </tool_call> <"), ToolCall("get_time", {})]


def test_thinking_that_the_prompt_has_opened_must_end(vocab: Vocab) -> None:
    form = forcing.tool_call(built(model_of("<tool_call>", "<think>\n")), TOOLS)
    grammar = Grammar(gbnf=form.gbnf, root=form.root)
    assert accepts(vocab, grammar, "hm</think>" + CALL)
    assert not accepts(vocab, grammar, CALL)
    assert read(form, "hm</think>" + CALL) == [Thinking("hm"), ToolCall("get_time", {})]


def test_harmony_thinks_and_answers_in_its_channels(vocab: Vocab) -> None:
    base = built(model_of("<|channel|> <|message|> <|start|>assistant"))
    form = forcing.tool_call(base, TOOLS, "get_time")
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    call = "<|channel|>commentary to=functions.get_time <|constrain|>json<|message|>{}"
    assert accepts(vocab, Grammar(gbnf=form.gbnf, root=form.root), thought + call)
    assert read(form, thought + call) == [Thinking("hm"), ToolCall("get_time", {})]
    answer = forcing.constrained(base, 'root ::= "yes" | "no"\n')
    text = thought + "<|channel|>final<|message|>yes"
    assert accepts(vocab, Grammar(gbnf=answer.gbnf, root=answer.root), text)
    assert read(answer, text) == [Thinking("hm"), Content("yes")]


def test_a_grammar_holds_with_and_without_thinking(vocab: Vocab) -> None:
    form = forcing.constrained(built(model_of("</think>")), 'root ::= "yes" | "no"\n')
    grammar = Grammar(gbnf=form.gbnf, root=form.root)
    assert accepts(vocab, grammar, "yes")
    assert accepts(vocab, grammar, "<think>x</think>\nno")
    assert not accepts(vocab, grammar, "perhaps")
    assert not accepts(vocab, grammar, "<think>x</think>perhaps")


@settings(max_examples=120, deadline=None)
@given(tag=st.text("ab<", min_size=1, max_size=5), text=st.text("ab<", max_size=12))
def test_up_to_ends_at_the_first_tag(tag: str, text: str) -> None:
    """The rules as a regular expression would say it: everything before the first tag, and the tag."""
    states = {m[1]: m[2] for m in re.finditer(r"^(\S+) ::= (.*)$", up_to(tag, "t"), re.MULTILINE)}
    state: str | None = "t"
    read_all = True
    for char in text:
        if state is None:
            read_all = False  # something follows the tag
            break
        for option in states[state].split(" | "):
            shape, _, then = option.partition(" ")
            hit = (char == shape[1:-1]) if shape.startswith('"') else char not in shape[2:-1]
            if hit:
                state = then or None
                break
    accepted = read_all and state is None
    assert accepted == (text.endswith(tag) and text.find(tag) == len(text) - len(tag))

"""Every Jinja template in llama.cpp's source renders a conversation with system, tools and several turns."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_engine.chat import parsing, prompt
from llm_engine.chat.messages import Call, Message, Tool, role_named
from llm_engine.chat.model import ChatModel
from llm_engine.chat.parsing.events import Content
from llm_engine.templates.errors import TemplateError
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.known import KNOWN, detect
from llm_engine.templates.limits import Budget

from tests.support.gates import refuse

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[3]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where"}},
    "required": ["city"],
}
TOOLS = (Tool("get_weather", "The weather of a city", SCHEMA),)
TURNS = (
    Message("system", "Sys-Needle"),
    Message("user", "Weather in Paris?"),
    Message("assistant", "", tool_calls=(Call("get_weather", {"city": "Paris"}, "call_abcd1234"),)),
    Message("tool", "sunny-21", tool_name="get_weather", tool_call_id="call_abcd1234"),
    Message("assistant", "It is fine-there."),
    Message("user", "And-Rome?"),
)
NEEDLES = ("Sys-Needle", "Weather in Paris?", "sunny-21", "fine-there", "And-Rome?")


@functools.cache
def folder() -> Path:
    ran = subprocess.run([ROOT / "scripts" / "llama-templates"], capture_output=True, text=True, timeout=110)
    if ran.returncode != 0:
        refuse(f"no llama.cpp source to read templates from: {ran.stderr.strip()[-200:]}", "REQUIRE_PEERS")
    return Path(ran.stdout.strip())


def models() -> list[ChatModel]:
    found = [
        ChatModel(path.name, jinja_source=path.read_text(), bos="<BOS>", eos="<EOS>")
        for path in sorted(folder().glob("*.jinja"))
    ]
    assert len(found) > 50
    return found


def problems(model: ChatModel) -> list[str]:
    if not model.uses_jinja:
        return ["does not render at all"]
    built = prompt.build(model, TURNS, tools=TOOLS)
    missing = [needle for needle in NEEDLES if needle not in built.text]
    order = [built.text.find(needle) for needle in NEEDLES[1:]]
    wrong = [f"{needle!r} is lost" for needle in missing]
    wrong += ["turns are out of order"] if not missing and order != sorted(order) else []
    wrong += ["the tool is not shown"] if "get_weather" not in built.text else []
    wrong += ["marks of arguments are Python's"] if "{'city': 'Paris'" in built.text else []
    return wrong


def test_each_renders_everything_that_was_said() -> None:
    wrong = {model.name: found for model in models() if (found := problems(model))}
    assert wrong == {}


def test_each_renders_the_shortest_conversation_and_streams_plain_text() -> None:
    for model in models():
        built = prompt.build(model, [Message("user", "Needle?")], think=False)
        assert "Needle?" in built.text, model.name
        parser = built.parser()
        if parsing.family_of(model).name == "harmony":
            continue
        # Some cannot be kept from thinking: then the answer comes after it.
        opening, closing = built.family.thinking
        thought = f"hm{closing}" if built.text.rstrip().endswith(opening) else ""
        events = [*parser.feed(f"{thought}Just "), *parser.feed("text."), *parser.finish()]
        assert "".join(e.text for e in events if isinstance(e, Content)) == "Just text.", model.name


def test_every_system_message_reaches_the_model_with_every_template() -> None:
    """Instructions, a developer's word after them, and one more in the middle, as coding agents send them."""
    first, second, late = (
        Message(role_named(role), text)
        for role, text in (
            ("system", "Sys-Needle"),
            ("developer", "Dev-Needle"),
            ("Developer", "Late-Needle"),
        )
    )
    user, answer, again = (
        Message("user", "Hi-Needle"),
        Message("assistant", "Yes."),
        Message("user", "Go-Needle"),
    )
    for model in models():
        assert "Dev-Needle" in prompt.build(model, [second, user]).text, model.name
        text = prompt.build(model, [first, second, user, answer, late, again]).text
        needles = ("Sys-Needle", "Dev-Needle", "Hi-Needle", "Late-Needle", "Go-Needle")
        assert [needle for needle in needles if needle not in text] == [], model.name
        assert text.find("Sys-Needle") < text.find("Dev-Needle"), model.name
        assert text.find("Hi-Needle") < text.find("Go-Needle"), model.name


def test_documents_reach_the_model_with_every_template() -> None:
    documents = [{"doc_id": "1", "title": "Doc-Needle", "text": "it rains in Oslo"}]
    places = 0
    for model in models():
        places += model.shows_documents
        built = prompt.build(model, [Message("user", "Needle?")], documents=documents)
        assert "it rains in Oslo" in built.text and "Needle?" in built.text, model.name
    assert places >= 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_templates_are_rendered_or_refused(data: st.DataObject) -> None:
    """Real templates with a piece cut out, doubled or put in from another one."""
    sources = [model.jinja_source or "" for model in models()]
    text = data.draw(st.sampled_from(sources))
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 300))
    other = data.draw(st.sampled_from(sources))
    start = data.draw(st.integers(0, len(other)))
    piece = data.draw(st.sampled_from(["", "{%", "}}", "{{ x }}", "{% endif %}", other[start : start + 200]]))
    messages = [{"role": "user", "content": "Needle?"}]
    with contextlib.suppress(TemplateError):
        ChatTemplate(text[:at] + piece + text[at + length :]).render(
            {"messages": messages, "add_generation_prompt": True, "bos_token": "", "eos_token": ""},
            budget=Budget(max_steps=20_000, max_chars=200_000, max_seconds=2),
        )


def test_gemma_with_a_system_role_is_told_from_gemma_without() -> None:
    """Twenty formats are known by name; these two differ in this alone."""
    with_system = (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
        "{{ first if loop.first }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    without = next(model for model in models() if model.name.startswith("google-gemma-2"))
    found = [detect(source or "") for source in (with_system, without.jinja_source)]
    assert [known and known.name for known in found] == ["gemma3-instruct", "gemma-instruct"]
    assert len(KNOWN) == len({known.name for known in KNOWN}) == 20


def test_most_families_are_recognised() -> None:
    """A template that shows tools and has no family is one whose calls would be lost."""
    lost = [
        model.name
        for model in models()
        if model.jinja_traits and model.jinja_traits.tool_calls and parsing.family_of(model).name == "generic"
    ]
    assert len(lost) <= 6, lost

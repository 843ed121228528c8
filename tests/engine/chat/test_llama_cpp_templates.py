"""Every Jinja template in llama.cpp's source renders a conversation with system, tools and several turns."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest
from llm_engine.chat import parsing, prompt
from llm_engine.chat.messages import Call, Message, Tool
from llm_engine.chat.model import ChatModel
from llm_engine.chat.parsing.events import Content

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


def test_most_families_are_recognised() -> None:
    """A template that shows tools and has no family is one whose calls would be lost."""
    lost = [
        model.name
        for model in models()
        if model.jinja_traits and model.jinja_traits.tool_calls and parsing.family_of(model).name == "generic"
    ]
    assert len(lost) <= 6, lost

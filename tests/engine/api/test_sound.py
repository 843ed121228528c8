"""A model may write anything into a tool call: no answer ends by it, and each API shows the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_engine.api import goencode, sound
from llm_engine.api.goparse import MAX_DEPTH
from llm_engine.api.turn import CallMade

from tests.engine.api.test_held_calls import by_chat_completions, by_messages, by_ollama, by_responses
from tests.engine.api.test_ollama_routes import HI
from tests.support.engine import EngineServer
from tests.support.http import Client

ODD = "\ufffd!"


class Odd(Client):
    """Asks the model that writes half a surrogate pair."""

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return super().post(path, {**body, "model": "tool-odd"}, **headers)


@pytest.mark.parametrize("ask", [by_chat_completions, by_ollama, by_responses, by_messages])
def test_half_a_pair_is_a_replacement_character_through_every_api(engine: EngineServer, ask: Any) -> None:
    assert ask(Odd(engine.url), {"type": "object"}) == {"city": ODD, "n": [1]}


def test_half_a_pair_in_a_stream(engine: EngineServer) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    answer = engine.client.post("/api/chat", {"model": "tool-odd", "messages": HI, "tools": tools})
    calls = [call for line in answer.lines for call in line["message"].get("tool_calls", [])]
    assert [call["function"]["arguments"]["city"] for call in calls] == [ODD]
    assert answer.lines[-1]["done"] is True


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), values))
def test_what_was_written_is_always_json(arguments: dict[Any, Any]) -> None:
    def constant(name: str) -> Any:
        raise AssertionError(name)

    made = CallMade("id", "f", sound.value(arguments), 0)
    read = json.loads(goencode.dumps({"arguments": made.arguments_json}), parse_constant=constant)
    assert read == {"arguments": made.arguments}
    assert json.loads(made.arguments_text.encode()) == made.arguments


def test_what_no_writer_of_json_takes() -> None:
    deep: Any = "end"
    for _ in range(MAX_DEPTH + 100):
        deep = [deep]
    arguments = sound.value({"big": 7**99, "none": float("nan"), "far": -float("inf"), 1: (2,), "deep": deep})
    assert {**arguments, "deep": 0} == {"big": 7**99, "none": "nan", "far": "-inf", "1": [2], "deep": 0}
    written = goencode.dumps(CallMade("id", "f", arguments, 0).arguments_json)
    assert str(7**99).encode() in written and written.count(b"[") == 2 + MAX_DEPTH + 99

"""Large bodies are read in pieces, and give exactly what the whole would have given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.api import base64text, goparse, longtexts
from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.goscan import GoSyntaxError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    '\\"/\u0000\n\U0001f600é', max_size=40
)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longtexts, "LONG", 5)
    monkeypatch.setattr(longtexts, "STEP", 7)


def whole(raw: bytes) -> Any:
    try:
        return goparse._parse(raw)
    except GoDecodeError as error:
        return str(error)


def pieces(raw: bytes) -> Any:
    try:
        return longtexts.loads(raw, goparse._parse)
    except (GoDecodeError, GoSyntaxError) as error:
        return str(error)


@given(VALUES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_pieces_give_what_the_whole_gives(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert pieces(raw) == value == whole(raw)
    assert list(map(str, value)) == list(map(str, pieces(raw))) if isinstance(value, dict) else True


@given(VALUES, st.data())
@settings(max_examples=150, deadline=None)
def test_broken_bodies_are_refused_in_the_same_words(value: Any, data: st.DataObject) -> None:
    raw = bytearray(json.dumps({"a": value, "b": "long enough to be lifted"}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'"\\{}[],:x1\n\xff\xc3'))
    cut = bytes(raw[: data.draw(st.integers(1, len(raw)))])
    assert pieces(cut) == whole(cut)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"half a pair \\ud83d and more text behind it"}',
        b'{"a":"a whole pair \\ud83d\\ude00\\ud83d\\ude00\\ud83d\\ude00 and more"}',
        b'{"a":"not UTF-8: \xff\xfe and \xc3 more text"} and what follows "is ignored',
        b'{"a":"' + b"\\\\" * 50 + b'","b":"' + b'\\"' * 50 + b'"}',
        b'{"a key that is longer than the limit":{"another one that is long":"and a text"}}',
        b'"only a text that is long"',
    ],
)
def test_odd_texts(raw: bytes) -> None:
    assert pieces(raw) == whole(raw)


def test_much_structure_is_refused_and_long_texts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longtexts, "MOST_STRUCTURE", 1000)
    text = "x" * 5000
    assert pieces(json.dumps({"a": [text, text]}).encode()) == {"a": [text, text]}
    with pytest.raises(longtexts.TooMuch, match="more than 1000 bytes besides its long texts"):
        longtexts.loads(json.dumps({"a": list(range(1000))}).encode(), goparse._parse)


@given(st.binary(max_size=60), st.sampled_from([4, 8, 12]))
def test_base64_in_steps(data: bytes, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64text, "STEP", step)
        text = base64text.base64.b64encode(data).decode()
        assert base64text.decode(text) == data
        spaced = "\n".join(text[at : at + 5] for at in range(0, len(text), 5))
        assert base64text.without_space(spaced) == text
        for broken in (text + "A", text[:-1] + "!" if text else "!", f"QQ=={text}" if text else "Q"):
            with pytest.raises(base64text.NotBase64):
                base64text.decode(broken)

"""Bodies are read as Go's encoding/json reads them, and refused in its words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_engine.api import goparse
from llm_engine.api.gojson import decode
from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.goscan import GoSyntaxError, scan
from llm_engine.api.ollama_types import ChatRequest, GenerateRequest

FLOAT = "Go value of type float64"
REFUSED = [
    ('{"model":"a"', "unexpected EOF"),
    ("{model:1}", "invalid character 'm' looking for beginning of object key string"),
    ("xyz", "invalid character 'x' looking for beginning of value"),
    ("[1]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
    ('"a"', "json: cannot unmarshal string into Go value of type api.GenerateRequest"),
    (
        '{"model":1}',
        "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string",
    ),
    (
        '{"options":[]}',
        "json: cannot unmarshal array into Go struct field GenerateRequest.options"
        " of type map[string]interface {}",
    ),
    (
        '{"top_logprobs":1.5}',
        "json: cannot unmarshal number 1.5 into Go struct field GenerateRequest.top_logprobs of type int",
    ),
    ('{"keep_alive":"abc"}', 'time: invalid duration "abc"'),
    ('{"keep_alive":"10"}', 'time: missing unit in duration "10"'),
    ('{"keep_alive":""}', 'time: invalid duration ""'),
    ('{"keep_alive":"3x"}', 'time: unknown unit "x" in duration "3x"'),
    ('{"keep_alive":true}', "Unsupported type: 'bool'"),
    ('{"keep_alive":[]}', "Unsupported type: '[]interface {}'"),
    ('{"images":["!"]}', "illegal base64 data at input byte 0"),
    ('{"images":["QUJ$"]}', "illegal base64 data at input byte 3"),
    ('{"think":"x"}', 'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)'),
    ('{"think":1}', 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ('{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
    ('{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
    ('{"a" 1}', "invalid character '1' after object key"),
    ("[1 2]", "invalid character '2' after array element"),
    ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    ('{"a":NaN}', "invalid character 'N' looking for beginning of value"),
    ('{"a":"\x01"}', "invalid character '\\x01' in string literal"),
    ('{"a":"\\q"}', "invalid character 'q' in string escape code"),
    ('{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
    ('{"a":-x}', "invalid character 'x' in numeric literal"),
    ('{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
    ('{"a":1e}', "invalid character '}' in exponent of numeric literal"),
    ("[" * 1000 + "]" * 1000, "exceeded max depth"),
    ('{"a":' * 201 + "1" + "}" * 201, "exceeded max depth"),
    (
        '{"top_logprobs":-1e400}',
        "json: cannot unmarshal number -1e400 into Go struct field GenerateRequest.top_logprobs of type int",
    ),
    (f'{{"keep_alive":1{"0" * 400}}}', f"json: cannot unmarshal number 1{'0' * 59}... into {FLOAT}"),
    ('{"keep_alive":1e400}', f"json: cannot unmarshal number 1e400 into {FLOAT}"),
    ('{"options":{"a":[{"b":1e400}]}}', f"json: cannot unmarshal number 1e400 into {FLOAT}"),
    ('{"format":1e400}', f"json: cannot unmarshal number 1e400 into {FLOAT}"),
]


@pytest.mark.parametrize(("body", "text"), REFUSED)
def test_go_refuses_in_these_words(body: str, text: str) -> None:
    with pytest.raises(GoDecodeError) as caught:
        decode(body.encode(), GenerateRequest)
    assert str(caught.value) == text


def test_a_list_of_parts_is_no_native_content() -> None:
    with pytest.raises(GoDecodeError) as caught:
        decode(b'{"messages":[{"role":"user","content":[{"type":"text"}]}]}', ChatRequest)
    assert str(caught.value) == (
        "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
    )


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"x"} and more',
        '{"MODEL":"x"}',
        '{"Model":"x","unknown":[1,{"a":null}]}',
        '{"model":"y","model":"x"}',
        '{"model":"x","options":null,"top_logprobs":null}',
        f'{{"model":"x","unknown":{"7" * 5000}}}',
        '{"model":"x","unknown":[1e400,{"a":-1e400}],"keep_alive":-1}',
    ],
)
def test_go_is_lenient(body: str) -> None:
    assert decode(body.encode(), GenerateRequest).model == "x"


def test_null_is_all_defaults() -> None:
    assert decode(b"null", GenerateRequest) == GenerateRequest()


def test_broken_text_becomes_replacement_characters() -> None:
    assert decode(b'{"model":"\xff"}', GenerateRequest).model == "\ufffd"
    assert decode(b'{"model":"\\ud800"}', GenerateRequest).model == "\ufffd"
    assert decode(b'{"model":"\\ud83d\\ude00"} x', GenerateRequest).model == "\U0001f600"


@pytest.mark.parametrize("text", ["", "{", '{"a":1} {', '{"a":1e400}', '{"a":' * 300 + "1" + "}" * 300])
def test_what_is_not_one_whole_value(text: str) -> None:
    with pytest.raises(GoDecodeError):
        goparse.whole(text)


def test_one_whole_value() -> None:
    assert goparse.whole(' {"a":[1,"\\ud800"]}\n ') == {"a": [1, "\ufffd"]}
    assert goparse.whole(f"[{2**70}]") == [float(2**70)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values, st.text())
def test_the_scanner_finds_the_end_of_any_value(value: object, rest: str) -> None:
    raw = json.dumps(value).encode()
    assert scan(raw + b" " + rest.encode("utf-8", "replace"), max_depth=500) == len(raw)


@given(st.binary())
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    try:
        goparse.parse(raw)
    except GoDecodeError as error:
        assert str(error)


@given(json_values, st.integers(min_value=0, max_value=200))
def test_a_cut_value_is_never_accepted_as_an_object(value: object, cut: int) -> None:
    raw = json.dumps({"a": value}).encode()
    if cut >= len(raw):
        return
    with pytest.raises(GoSyntaxError, match="unexpected EOF"):
        scan(raw[:cut], max_depth=500)

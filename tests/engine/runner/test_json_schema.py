"""A schema's grammar takes what the schema takes. llama.cpp's own matcher decides, byte by byte."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from llm_engine.runner.grammar import sampler_factory
from llm_engine.runner.json_schema import schema_to_gbnf
from llm_engine.runner.library import lib
from llm_engine.runner.messages import Grammar
from llm_engine.runner.sampling import _candidate
from llm_engine.runner.vocab import Vocab

FIRST_BYTE = 3
END = 2


def accepts(vocab: Vocab, schema: Any, text: str) -> bool:
    sampler = sampler_factory(vocab, Grammar(json_schema=schema))()
    try:
        for token in [*(FIRST_BYTE + byte for byte in text.encode()), END]:
            one = np.zeros(1, dtype=_candidate)
            one["id"], one["logit"] = token, 1.0
            array = lib.llama_token_data_array(one.ctypes.data_as(lib.llama_token_data_p), 1, -1, False)
            lib.llama_sampler_apply(sampler, ctypes.byref(array))
            if not np.isfinite(one["logit"][0]):
                return False
            lib.llama_sampler_accept(sampler, token)
        return True
    finally:
        lib.llama_sampler_free(sampler)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
                       "required": ["v"], "additionalProperties": False}},
    "$ref": "#/$defs/node",
}  # fmt: skip
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    ({}, [{}, {"a": [1, None, {"b": "c"}]}], [1, [], "x"]),
    (PERSON, [{"name": "Ada"}, {"name": "Ada", "age": 36}, {"name": "A", "tags": []}, {"name": "A", "tags": ["x", "y"]}],
     [{}, {"age": 3}, {"name": 3}, {"name": "A", "age": 131}, {"name": "A", "age": -1}, {"name": "A", "tags": ["x"] * 3},
      {"name": "A", "other": 1}]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc", "äöü", '"\\'], ["a", "abcd", ""]),
    ({"enum": ["red", 7, None, True]}, ["red", 7, None, True], ["blue", 8, False]),
    ({"const": {"a": 1}}, [{"a": 1}], [{"a": 2}]),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [3, "x"], [None, [], 1.5]),
    ({"type": ["integer", "null"]}, [3, None], ["x"]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
    (TREE, [{"v": 1}, {"v": 1, "next": {"v": 2, "next": {"v": 3}}}], [{"next": {"v": 1}}, {"v": 1, "next": 3}]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]],
     [[1], [1, 2, 3, 4], ["x", 1]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, [[1, "a"]], [[1], ["a", 1]]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
     [{}, {"a": 1}, {"a": 1, "b": True}, {"ab": True}, {"b": False, "c": True}], [{"a": True}, {"b": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"x": 1, "y": 2}], [{"x": "y"}]),
    ({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, ["AB-1", "XY-123"], ["ab-1", "AB-", "AB-1x"]),
    ({"type": "string", "pattern": "^(foo|ba[rz])?$"}, ["", "foo", "bar", "baz"], ["ba", "foobar"]),
    ({"type": "string", "pattern": "b+"}, ["b", "abba"], ["aa"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "1999-12-31"], ["2024-13-01", "x"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
    ({"type": "string", "format": "date-time"}, ["2024-02-29T10:00:00Z", "2024-02-29T10:00:00.5+02:00"], ["2024-02-29"]),
    ({"type": "boolean"}, [True, False], [None, 0]),
    ({"type": "number"}, [0, -1, 2.5, 1e10], ["1"]),
    ({"type": "string", "nullable": True}, ["x"], [3]),
    ({"properties": {"a": {}}, "required": ["a", "z"]}, [{"a": 1, "z": 2}], [{"a": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_takes_what_the_schema_takes(vocab: Vocab, schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert accepts(vocab, schema, json.dumps(value, ensure_ascii=False)), value
        if "const" not in schema:  # a constant is written in one way
            assert accepts(vocab, schema, json.dumps(value, separators=(",", ":"), ensure_ascii=False)), value
    for value in bad:
        assert not accepts(vocab, schema, json.dumps(value, ensure_ascii=False)), value
        # The validator checks no formats, and lets arrays be shorter than their prefix; the grammar is stricter.
        if schema and not {"nullable", "format", "prefixItems"} & schema.keys():
            assert not Draft202012Validator(schema).is_valid(value), f"the case itself is wrong: {value}"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 9), (3, 17), (-5, 5), (98, 1203), (None, -3), (7, None), (-120, -7), (0, 0), (10, 100), (None, 42)],
)
def test_bounds_of_integers_are_exact(vocab: Vocab, low: int | None, high: int | None) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    if low is not None:
        schema["minimum"] = low
    if high is not None:
        schema["maximum"] = high
    near = {
        e + d
        for e in (low, high, 0, 100, -100, 1000)
        if e is not None
        for d in (-11, -2, -1, 0, 1, 2, 11, 90)
    }
    for value in sorted(near):
        inside = (low is None or value >= low) and (high is None or value <= high)
        assert accepts(vocab, schema, str(value)) == inside, value
    assert not accepts(vocab, schema, "-0")
    assert not accepts(vocab, schema, "007")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strng"}, "unknown type"),
        ({"$ref": "#/$defs/none"}, "is not in the schema"),
        ({"$ref": "http://example.org/s"}, "inside the schema"),
        ({"enum": []}, "at least one value"),
        ({"anyOf": []}, "at least one schema"),
        ({"type": "string", "pattern": "(?=x)"}, "look-around"),
        ({"type": "string", "pattern": "[a"}, "too early"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no integer"),
        ({"type": "array", "items": 3}, "must be an object"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "contradict"),
        ({"type": "array", "minItems": -1}, "not negative"),
        (3, "must be an object"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused_with_its_place(schema: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        schema_to_gbnf(schema)


def test_many_optional_properties_stay_small() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(60)},
        "additionalProperties": False,
    }
    assert len(schema_to_gbnf(schema)) < 40_000

"""A schema's grammar takes what the schema takes. llama.cpp's own matcher decides, byte by byte."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llm_engine.runner.grammar import constraint_factory
from llm_engine.runner.json_schema import schema_to_gbnf
from llm_engine.runner.messages import Grammar
from llm_engine.runner.vocab import Vocab

FIRST_BYTE = 3
END = 2


def accepts(vocab: Vocab, schema: Any, text: str) -> bool:
    constraint = constraint_factory(vocab, Grammar(json_schema=schema))()
    try:
        for token in [*(FIRST_BYTE + byte for byte in text.encode()), END]:
            if not constraint.allows(token):
                return False
            constraint.accept(token)
        return True
    finally:
        constraint.close()


CASES = json.loads((Path(__file__).parent / "json_schema_cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[json.dumps(case["schema"])[:60] for case in CASES])
def test_takes_what_the_schema_takes(vocab: Vocab, case: dict[str, Any]) -> None:
    schema = case["schema"]
    for value in case["takes"]:
        assert accepts(vocab, schema, json.dumps(value, ensure_ascii=False)), value
        if "const" not in schema:  # a constant is written in one way
            compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            assert accepts(vocab, schema, compact), value
    for value in case["refuses"]:
        assert not accepts(vocab, schema, json.dumps(value, ensure_ascii=False)), value
        # The validator checks no formats, and lets arrays be shorter than their prefix; the grammar is
        # stricter.
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
        ({"type": "string", "pattern": "[z-a]"}, "wrong way round"),
        ({"type": "string", "pattern": r"[\B]"}, "not supported"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no integer"),
        ({"type": "array", "items": 3}, "must be an object"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "contradict"),
        ({"type": "array", "minItems": -1}, "not negative"),
        (3, "must be an object"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}, "back to itself"),
        (
            {"allOf": [{"$ref": "#/a"}], "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}},
            "back to itself",
        ),
        ({"type": "object", "anyOf": [{"$ref": "#"}]}, "nested too deeply"),
        ({"allOf": [{"$ref": "#"}]}, "nested too deeply"),
        ({"allOf": 5}, "must be a list"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "allOf wants string and integer"),
        ({"allOf": [{"const": 1}, {"enum": [True, 2]}]}, "no value is in all"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "cannot be held to at once"),
        ({"type": "array", "prefixItems": 5}, "must be a list"),
        ({"type": []}, "some of"),
        ({"type": [["string"]]}, "some of"),
        ({"type": "object", "required": True}, "a list of names"),
        ({"type": "object", "properties": 5}, "must be an object"),
        ({"allOf": [{"properties": 5}]}, "must be an object"),
        ({"type": "integer", "minimum": "0"}, "must be a number, not"),
        ({"type": "integer", "minimum": float("inf")}, "must be a number, not"),
        ({"type": "integer", "minimum": 10**4000}, "no integer"),
        ({"type": "string", "pattern": "(" * 3000}, "too deeply|too early"),
        ({"type": "string", "pattern": "a" * 5000}, "over the limit"),
        ({"type": "object", "required": [["a"]]}, "a list of names"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused_with_its_place(schema: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        schema_to_gbnf(schema)


@pytest.mark.parametrize(
    "pattern",
    [r"[ -~]", r"[!-~]", "[\"']", "[A-z]", r"[\\a]", r"[\w.\-]", "[\x01-\x22]", r"[\s\n]", "[#-é]", "[–-—a]"],
)
def test_a_class_of_a_pattern_leaves_the_string_whole(vocab: Vocab, pattern: str) -> None:
    """A quote or a backslash among its members comes escaped: raw it would end the string."""
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    for char in [*map(chr, range(128)), "é", "–", "𝄞"]:
        inside = re.fullmatch(pattern, char, re.ASCII) is not None
        assert accepts(vocab, schema, json.dumps(char, ensure_ascii=False)) == inside, char
        if char in '"\\' or char < " ":
            assert not accepts(vocab, schema, f'"{char}"'), char


@pytest.mark.parametrize("pattern", ["[^a]", '^a\nb"$', r"\W", r"\S\D", r"^[^\w]$"])
def test_what_a_pattern_lets_through_is_json(vocab: Vocab, pattern: str) -> None:
    for char in ('"', "\\", "\n", "\x00"):
        for text in (f'"{char}"', f'"a{char}b"', f'"a\nb{char}"'):
            assert not accepts(vocab, {"type": "string", "pattern": pattern}, text), text


def test_many_optional_properties_stay_small() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(60)},
        "additionalProperties": False,
    }
    assert len(schema_to_gbnf(schema)) < 40_000


def test_what_says_nothing_is_passed_over() -> None:
    plain = schema_to_gbnf({"type": "object", "properties": {"a": {"type": "string"}}})
    for more in ({"required": None}, {"allOf": []}):
        schema = {"type": "object", "properties": {"a": {"type": "string"}}, **more}
        assert schema_to_gbnf(schema) == plain
    assert schema_to_gbnf({"type": "string", "format": ["date"]}) == schema_to_gbnf({"type": "string"})


@pytest.mark.parametrize(
    ("bounds", "takes", "refuses"),
    [
        # OpenAPI 3.0 says by a boolean whether the bound itself is outside.
        ({"minimum": 0, "exclusiveMinimum": True}, [1, 2], [0, -1]),
        ({"minimum": 0, "exclusiveMinimum": False}, [0, 1], [-1]),
        ({"minimum": 0, "maximum": 10, "exclusiveMaximum": False}, [0, 10], [11]),
        ({"minimum": 0, "maximum": 10, "exclusiveMaximum": True}, [0, 9], [10]),
        ({"exclusiveMaximum": True}, [0, 10], []),
        ({"minimum": 3, "exclusiveMinimum": 1}, [3], [2]),
        ({"minimum": 0.5, "exclusiveMaximum": 2.5}, [1, 2], [0, 3]),
        ({"maximum": 10**400}, [7, -7], []),
    ],
)
def test_bounds_in_every_dialect(vocab: Vocab, bounds: Any, takes: list[int], refuses: list[int]) -> None:
    schema = {"type": "integer", **bounds}
    for value in takes:
        assert accepts(vocab, schema, str(value)), value
    for value in refuses:
        assert not accepts(vocab, schema, str(value)), value


def deep_map(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "additionalProperties": schema}
    return schema


def test_a_map_of_maps_stays_small(vocab: Vocab) -> None:
    assert len(schema_to_gbnf(deep_map(40))) < 20_000
    value = 7
    for _ in range(15):
        value = {"a": value, "b": value} if isinstance(value, int) else {"c": value}  # type: ignore[assignment]
    assert accepts(vocab, deep_map(15), json.dumps(value))
    assert not accepts(vocab, deep_map(15), json.dumps(value).replace("7", '"7"'))


def nested(levels: int, layer: Any) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = layer(schema)
    return schema


@pytest.mark.parametrize(
    "layer",
    [
        lambda inner: {"type": "object", "properties": {"a": {"type": "integer"}, "b": inner}},
        lambda inner: {"type": "object", "properties": {"a": inner}, "additionalProperties": inner},
        lambda inner: {"type": ["array", "array"], "items": inner},
        lambda inner: {"anyOf": [{"type": "object", "additionalProperties": inner}, {"type": "null"}]},
    ],
)
def test_what_is_nested_does_not_double(layer: Any) -> None:
    """A schema of a few hundred bytes must not become megabytes, as it did with each level said twice."""
    try:
        assert len(schema_to_gbnf(nested(30, layer))) < 200_000
    except ValueError as error:
        assert "more than" in str(error)


def doubling(levels: int, **more: Any) -> Any:
    """Each definition brings the next one twice."""
    defs = {
        f"d{at}": {**more, "allOf": [{"$ref": f"#/$defs/d{at + 1}"}, {"$ref": f"#/$defs/d{at + 1}"}]}
        for at in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        doubling(28),
        doubling(28, properties={"a": {}}),
        nested(30, lambda inner: {"properties": {"x": inner}, "anyOf": [{"type": "object"}] * 2}),
        {"enum": ["x" * 1000] * 2000},
        {"type": "object", "required": [f"{at}" * 9 for at in range(30_000)]},
    ],
    ids=["references", "references with properties", "alternatives", "values", "names"],
)
def test_a_schema_that_would_grow_without_end_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="more than"):
        schema_to_gbnf(schema)


def test_numbers_stay_within_what_json_readers_hold(vocab: Vocab) -> None:
    assert accepts(vocab, {"type": "number"}, "-1.5e99")
    assert not accepts(vocab, {"type": "number"}, "1e400")

"""A schema's grammar takes what the schema takes. llama.cpp's own matcher decides, byte by byte."""

from __future__ import annotations

import json
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

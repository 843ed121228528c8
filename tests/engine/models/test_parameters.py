"""What a model may set is what a request may set, and both check the same types."""

from __future__ import annotations

from typing import Any

import pytest
from llm_engine.models.parameters import DEPRECATED, KINDS, InvalidParameter, check, check_all, from_text
from llm_engine.scheduler.options import OBSOLETE, TYPES

SAME = {
    "integer": "int",
    "float32": "float",
    "boolean": "bool",
    "string": "string",
    "array": "list",
    "array of float32": "floats",
}


def test_the_two_tables_agree() -> None:
    # A bias names token ids, which is nothing to write into a Modelfile.
    options = {name: SAME[kind] for name, kind in TYPES.items() if name != "logit_bias"}
    assert options == KINDS
    assert DEPRECATED == OBSOLETE


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("num_ctx", 4096, 4096),
        ("num_ctx", 4096.0, 4096),
        ("temperature", 1, 1),
        ("adapter_scale", 1, [1.0]),
        ("adapter_scale", [0.5, -1], [0.5, -1.0]),
        ("stop", "a", ["a"]),
        ("stop", ["a", "b"], ["a", "b"]),
        ("use_mmap", False, False),
    ],
)
def test_good_values(name: str, value: Any, kept: Any) -> None:
    assert check(name, value) == kept


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("num_ctx", "abc", 'parameter "num_ctx" must be of type integer'),
        ("num_ctx", True, "must be of type integer"),
        ("num_ctx", 1.5, "must be of type integer"),
        ("num_ctx", 1e300, "must be of type integer"),
        ("temperature", float("nan"), "must be of type float32"),
        ("stop", [1], "must be of type array of strings"),
        ("use_mmap", 1, "must be of type boolean"),
        ("num_ctx", -5, 'parameter "num_ctx" must be at least 1, not -5'),
        ("num_thread", -1, "must be at least 0, not -1"),
        ("repeat_penalty", 0, "must be above 0, not 0"),
        ("mirostat", 3, "must be 0, 1 or 2, not 3"),
        ("foo", 1, "unknown parameter 'foo'"),
        ("num_ctxt", 1, "did you mean 'num_ctx'?"),
    ],
)
def test_bad_values(name: str, value: Any, text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(name, value)
    assert text in str(caught.value)


def test_deprecated_ones_are_left_out() -> None:
    assert check_all({"f16_kv": True, "seed": 1}) == {"seed": 1}


@pytest.mark.parametrize("text", ["", "x", "1e999", "0x10", "--1", "9" * 30])
def test_bad_numbers_in_text(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid int value"):
        from_text("num_ctx", text)

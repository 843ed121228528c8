"""Options: merged in order, checked by type, refused in Ollama's words."""

from __future__ import annotations

from typing import Any

import pytest
from llm_engine.scheduler.options import InvalidOption, parse


def test_later_layers_win_and_null_is_skipped() -> None:
    options = parse({"temperature": 1.0, "top_k": 5}, {"temperature": 0.2}, {"top_k": None, "num_ctx": 99.9})
    assert (options.sampling.temperature, options.sampling.top_k, options.runner.num_ctx) == (0.2, 5, 99)


def test_unknown_and_obsolete_names_are_ignored() -> None:
    assert parse({"foo": object(), "numa": True, "tfs_z": 1}) == parse()


def test_seeds() -> None:
    assert parse({"seed": -1}).sampling.seed is None
    assert parse({"seed": 2**40 + 3}).sampling.seed == (2**40 + 3) % 0xFFFFFFFF


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_ctx": "x"}, 'option "num_ctx" must be of type integer'),
        ({"num_ctx": True}, 'option "num_ctx" must be of type integer'),
        ({"num_ctx": 0}, 'option "num_ctx" must be at least 1, not 0'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"temperature": 1e300}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": 5}, 'option "stop" must be of type array'),
        ({"stop": [5]}, 'option "stop" must be of an array of strings'),
        ({"grammar": 1}, 'option "grammar" must be of type string'),
        ({"logit_bias": {"x": 1}}, 'option "logit_bias": "x" is not a token id'),
        ({"logit_bias": {"1": "a"}}, 'option "logit_bias": the bias of token 1 must be a number'),
    ],
)
def test_refusals(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse(options)
    assert str(caught.value) == text

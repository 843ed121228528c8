"""The scripted model: deterministic bytes, scripts that win by a wide margin, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader
from llm_engine.models.scripted import build

from tests.support.models import ModelMaker


def vocabulary(path: Path) -> list[str]:
    tokens = GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert isinstance(tokens, list)
    return tokens


def spoken(path: Path) -> str:
    return "".join(vocabulary(path)[259:]).replace("▁", " ")


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    one = build(tmp_path / "one.gguf", {None: "hello there", "<|x|>": "other words"})
    two = build(tmp_path / "two.gguf", {None: "hello there", "<|x|>": "other words"})
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size < 1_000_000


def test_repeated_words_become_different_tokens(make_gguf: ModelMaker) -> None:
    text = "a rose is a rose is a rose, and a rose is a rose"
    path = make_gguf(text)
    assert spoken(path) == text
    assert len(set(vocabulary(path))) == len(vocabulary(path))


def test_text_may_end_in_a_repetition(make_gguf: ModelMaker) -> None:
    assert spoken(make_gguf("again again again again")) == "again again again again"


def test_scripts_share_words(make_gguf: ModelMaker) -> None:
    path = make_gguf({None: "the same text", "<|tool|>": "the same text"})
    assert spoken(path).count("the same text") == 2


def test_too_long_for_the_width_is_refused(make_gguf: ModelMaker) -> None:
    with pytest.raises(ValueError, match="use a larger width"):
        make_gguf(" ".join(f"word{n}" for n in range(400)), width=16)


def test_a_trigger_twice_is_refused(make_gguf: ModelMaker) -> None:
    with pytest.raises(ValueError, match="twice"):
        make_gguf({None: "x", "</s>": "y"})


def test_metadata_replaces_what_build_writes(make_gguf: ModelMaker) -> None:
    path = make_gguf("x", metadata={"general.name": "other", "llama.context_length": 64})
    fields = GGUFReader(path).fields
    assert fields["general.name"].contents() == "other"
    assert fields["llama.context_length"].contents() == 64

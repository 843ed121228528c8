"""Names: defaults, limits, and what is no name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from llm_engine.models.errors import InvalidName
from llm_engine.models.names import Name

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("llama3:8b", "registry.ollama.ai/library/llama3:8b", "llama3:8b"),
        ("me/llama3", "registry.ollama.ai/me/llama3:latest", "me/llama3:latest"),
        ("hf.co/u/r-GGUF:Q4_K_M", "hf.co/u/r-GGUF:Q4_K_M", "hf.co/u/r-GGUF:Q4_K_M"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("https://reg.example/a/b", "reg.example/a/b:latest", "reg.example/a/b:latest"),
        (" spaced ", "registry.ollama.ai/library/spaced:latest", "spaced:latest"),
        ("_x", "registry.ollama.ai/library/_x:latest", "_x:latest"),
    ],
)
def test_parts_that_are_left_out(text: str, full: str, short: str) -> None:
    name = Name.parse(text)
    assert (name.full, name.short) == (full, short)
    assert Name.parse(name.full) == name
    assert Name.from_path(name.path) == name


@pytest.mark.parametrize(
    "text",
    ["", "a b", ":", "x/../y", "-x", ".x", "a/b/c/d", "a:", "a:b:c", "n.s/x", "x" * 81, "a:" + "x" * 81,
     "/a", "a//b", "x@sha256:12", "x@md5:" + HEX, "é", "a\n", "a\x00b",
     "h" * 351 + "/a/b", "../../etc:passwd"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    if text == "a\n":  # surrounding blanks are cut off
        assert Name.parse(text).model == "a"
        return
    with pytest.raises(InvalidName, match="invalid model name"):
        Name.parse(text)


def test_pin() -> None:
    name = Name.parse(f"a:b@sha256:{HEX}")
    assert (name.short, name.pin) == ("a:b", f"sha256:{HEX}")


@pytest.mark.parametrize("path", ["a/b/c", "a/b/c/d/e", "a/b/c/.tmp", "a/.b/c/d"])
def test_paths_that_are_no_manifests(path: str) -> None:
    with pytest.raises(InvalidName):
        Name.from_path(PurePosixPath(path))

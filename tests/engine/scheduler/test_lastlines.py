"""Which line says why a runner died."""

from __future__ import annotations

import pytest
from llm_engine.scheduler.lastlines import MOST, LastLines

LOADED = None
CARD = [
    "CUDA error: an illegal memory access was encountered",
    "  current device: 0, in function ggml_backend_cuda_synchronize at ggml-cuda.cu:2981",
    "  cudaStreamSynchronize(cuda_ctx->stream())",
    "/src/ggml-cuda.cu:101: CUDA error",
]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], ""),
        (["loading", LOADED], ""),
        (["loading", LOADED, "computing", ""], "computing"),
        (["no such tensor"], "no such tensor"),
        (
            [LOADED, "/src/a.cpp:17: GGML_ASSERT(x) failed", "[New LWP 7]"],
            "/src/a.cpp:17: GGML_ASSERT(x) failed",
        ),
        ([LOADED, "terminate called", "  what():  vector", "gone"], "what():  vector"),
        ([LOADED, *CARD], CARD[0]),
        (["/src/a.cpp:17: while loading", LOADED, "after"], "after"),
    ],
)
def test_the_line_that_says_why(lines: list[str | None], why: str) -> None:
    last = LastLines()
    for line in lines:
        if line is LOADED:
            last.works()
        else:
            last.add(line)
    assert last.why() == why


def test_a_grammar_is_not_kept_and_what_follows_it_is() -> None:
    last = LastLines()
    for line in (
        "parse: error parsing grammar: expecting",
        "",
        "secret ::= (",
        "failed to parse grammar",
        "on",
    ):
        last.add(line)
    assert last.all == ("failed to parse grammar", "on")
    for number in range(100):
        last.add(str(number))
    assert last.all == tuple(str(number) for number in range(100 - MOST, 100))

"""A prompt that fills the context leaves no room for an answer: it is cut as Ollama cuts it, and one token
less is taken whole. Every letter is a token of this model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine import EngineServer
from tests.support.http import Answer

CONTEXT = 4096
ONE = {"num_predict": 1}


def raw(engine: EngineServer, tokens: int, options: dict[str, Any] | None = None, **more: Any) -> Answer:
    """A prompt of so many tokens, the one that begins every text among them."""
    body = {"model": "random", "prompt": "x" * (tokens - 1), "raw": True, "stream": False, **more}
    return engine.client.post("/api/generate", {**body, "options": {**ONE, **(options or {})}})


def test_one_token_less_than_the_context_is_taken_whole(engine: EngineServer) -> None:
    for truncate in (True, False):
        answer = raw(engine, CONTEXT - 1, truncate=truncate)
        assert answer.json["prompt_eval_count"] == CONTEXT - 1
        assert "x-context-truncated" not in answer.headers


@pytest.mark.parametrize(("keep", "kept"), [(None, 5), (0, 1), (100, 101), (-1, CONTEXT - 1)])
def test_the_whole_context_is_cut(engine: EngineServer, keep: int | None, kept: int) -> None:
    """The first tokens stay, and of the rest so much that half of what is behind them is free."""
    answer = raw(engine, CONTEXT, {} if keep is None else {"num_keep": keep})
    assert answer.json["prompt_eval_count"] == CONTEXT - max((CONTEXT - kept) // 2, 1)
    assert answer.headers["x-context-truncated"] == "true"


def test_the_whole_context_is_refused_where_nothing_may_be_cut(engine: EngineServer) -> None:
    refused = raw(engine, CONTEXT, truncate=False)
    assert refused.status == 400
    assert refused.json["error"] == (
        f"request ({CONTEXT} tokens) exceeds the available context size ({CONTEXT} tokens), try increasing it"
    )
    assert raw(engine, CONTEXT, shift=False).status == 400


def test_a_conversation_that_fills_the_context_loses_its_oldest_message(engine: EngineServer) -> None:
    """Rather than the middle of one."""

    def ask(last: int) -> Answer:
        texts = ("a" * 2000, "b" * 10, "c" * last)
        messages = [{"role": role, "content": text} for role, text in zip(ROLES, texts, strict=True)]
        body = {"model": "random", "messages": messages, "stream": False, "options": ONE}
        return engine.client.post("/api/chat", body)

    around = ask(100).json["prompt_eval_count"] - 100
    fits, full = ask(CONTEXT - 1 - around), ask(CONTEXT - around)
    assert fits.json["prompt_eval_count"] == CONTEXT - 1 and "x-context-truncated" not in fits.headers
    assert full.headers["x-context-truncated"] == "true"
    assert CONTEXT - around <= full.json["prompt_eval_count"] < CONTEXT - 1000


ROLES = ("user", "assistant", "user")

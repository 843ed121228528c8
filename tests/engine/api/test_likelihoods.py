"""A whole answer with log-probabilities is put together in a thread; one without them costs no thread."""

from __future__ import annotations

import json
import threading

import pytest
from llm_engine.api import likelihoods
from llm_engine.api.turn import Answer
from llm_engine.runner.messages import TokenLogprob

TOKENS = [TokenLogprob(7, b"<a>", -0.5, ((7, b"<a>", -0.5), (8, "\u00e4".encode(), -1.0)))]


@pytest.mark.parametrize("answer", [Answer(), Answer(logprobs=TOKENS), Answer(echo=TOKENS)])
async def test_where_an_answer_is_put_together(answer: Answer) -> None:
    threads: list[int] = []

    def document() -> object:
        threads.append(threading.get_ident())
        return {
            "tokens": likelihoods.each(TOKENS, lambda item: {"text": item.text.decode(), "n": len(item.top)})
        }

    reply = await likelihoods.whole([Answer(), answer], document)
    assert json.loads(reply.content) == {"tokens": [{"text": "<a>", "n": 2}]}
    assert b"\\u003ca\\u003e" in reply.content, "written as Go writes it"
    assert (threads == [threading.get_ident()]) == (not answer.logprobs and not answer.echo)

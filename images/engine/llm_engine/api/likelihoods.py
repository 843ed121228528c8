"""Answers with log-probabilities: a long one with twenty candidates for each token has tens of megabytes.

They are written down token by token, and in a thread, so that no other request waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from llm_engine.api import goencode
from llm_engine.api.endpoint import Reply, json_reply
from llm_engine.api.turn import Answer
from llm_engine.api.vectors import listed
from llm_engine.runner.messages import TokenLogprob


def fragment(value: Any) -> orjson.Fragment:
    """A part of a document that is written already: it takes no time later."""
    return orjson.Fragment(goencode.dumps(value))


def each(items: Sequence[TokenLogprob], entry: Callable[[TokenLogprob], Any]) -> orjson.Fragment:
    """The list of what `entry` says of each token."""
    return orjson.Fragment(listed([goencode.dumps(entry(item)) for item in items]))


async def whole(answers: Iterable[Answer], document: Callable[[], Any]) -> Reply:
    """The reply with `document`, which is made here."""
    if any(answer.logprobs or answer.echo for answer in answers):
        return await asyncio.to_thread(lambda: json_reply(document()))
    return json_reply(document())

"""Events of a turn, gathered and sent as one frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_engine.runner import protocol
from llm_engine.runner.branch import Branch
from llm_engine.runner.messages import TokenLogprob


class Outbox:
    """`send` takes a finished frame and never blocks."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._events: list[tuple[Any, ...]] = []

    def tokens(self, branch: Branch, text: str, ids: list[int], logprobs: list[TokenLogprob]) -> None:
        packed = [(lp.id, lp.text, lp.logprob, lp.top) for lp in logprobs]
        self._events.append((branch.request_id, protocol.TOKENS, branch.index, text, ids, packed))

    def done(self, branch: Branch, reason: str) -> None:
        self._events.append(
            (
                branch.request_id,
                protocol.DONE,
                branch.index,
                reason,
                vars(branch.usage()),
                branch.text.matched,
            )
        )

    def failed(self, request_id: int, kind: str, text: str) -> None:
        self._events.append((request_id, protocol.FAILED, kind, text))

    def queued(self, branch: Branch, position: int) -> None:
        self._events.append((branch.request_id, protocol.QUEUED, position))

    def flush(self) -> None:
        if self._events:
            self._send(protocol.encode("turn", 0, self._events))
            self._events = []

"""Events of a turn, gathered and sent as one frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llm_engine.runner import protocol
from llm_engine.runner.branch import Branch
from llm_engine.runner.messages import TokenLogprob

# Streams faster than this are sent in steps of it: an eye cannot tell, and each step costs the server time
# that the computing threads would have had.
STEP = 0.03


class Outbox:
    """`send` takes a finished frame and never blocks."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._events: list[tuple[Any, ...]] = []
        self._texts: dict[tuple[int, int], int] = {}
        """Where in the events the text of a branch is that a later token can be added to."""
        self._urgent = False
        self._sent = 0.0

    def tokens(self, branch: Branch, text: str, ids: list[int], logprobs: list[TokenLogprob]) -> None:
        count = branch.generated - branch.counted
        branch.counted = branch.generated
        packed = _packed(logprobs)
        key = (branch.request_id, branch.index)
        at = self._texts.get(key)
        if at is not None:
            old = self._events[at]
            self._events[at] = (*old[:3], old[3] + text, old[4] + ids, old[5] + packed, old[6] + count)
            return
        self._texts[key] = len(self._events)
        # The first token of an answer is what people wait for.
        self._urgent |= not branch.spoken
        branch.spoken = True
        self._events.append((branch.request_id, protocol.TOKENS, branch.index, text, ids, packed, count))

    def started(self, branch: Branch) -> None:
        """No hurry: it may travel with the first token."""
        said = (branch.request_id, protocol.STARTED, branch.index, len(branch.prompt), branch.cached)
        self._events.append(said)

    def read(self, request_id: int, logprobs: list[TokenLogprob]) -> None:
        self._events.append((request_id, protocol.READ, _packed(logprobs)))

    def done(self, branch: Branch, reason: str) -> None:
        self._say(
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
        self._say((request_id, protocol.FAILED, kind, text))

    def queued(self, branch: Branch, position: int) -> None:
        self._say((branch.request_id, protocol.QUEUED, position))

    def _say(self, event: tuple[Any, ...]) -> None:
        self._urgent = True
        self._events.append(event)

    def flush(self, *, soon: bool = False) -> None:
        """Send what there is; `soon`: the next turn ends within a step, so tokens may wait for it."""
        if not self._events:
            return
        now = time.monotonic()
        if soon and not self._urgent and now - self._sent < STEP:
            return
        self._send(protocol.encode("turn", 0, self._events))
        self._events = []
        self._texts = {}
        self._urgent = False
        self._sent = now


def _packed(logprobs: list[TokenLogprob]) -> list[tuple[Any, ...]]:
    return [(lp.id, lp.text, lp.logprob, lp.top) for lp in logprobs]

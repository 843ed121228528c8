"""What one request for text costs, noted as it goes and put on the books when it ends, however it ends.

A client that hangs up, a runner that dies and a model that fails have cost what was computed until then. The
gaps between the pieces of an answer are those of this answer alone, also where several come side by side.
"""

from __future__ import annotations

import time

from llm_engine.api.endpoint import Call
from llm_engine.runner.messages import Done, Event, Started, Tokens


class Account:
    def __init__(self, call: Call, model: str, *, silent: bool) -> None:
        self._metrics = call.engine.metrics
        self._label = self._metrics.label(model)
        self._key = call.key
        self._since = call.started
        self._silent = silent
        self._closed = False
        self._prompt = self._cached = self._drafted = self._accepted = 0
        self._written: dict[int, int] = {}
        self._last: dict[int, float] = {}

    def note(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self._written[event.index] = self._written.get(event.index, 0) + event.count
            self._time(event.index)
        elif isinstance(event, Started) and event.index == 0:
            self._prompt, self._cached = event.prompt_tokens, event.cached_tokens
        elif isinstance(event, Done):
            usage = event.usage
            self._written[event.index] = usage.completion_tokens
            self._drafted += usage.drafted_tokens
            self._accepted += usage.accepted_tokens
            if event.index == 0:
                self._prompt, self._cached = usage.prompt_tokens, usage.cached_tokens

    def _time(self, index: int) -> None:
        now = time.monotonic()
        if index in self._last:
            self._metrics.token_gap.labels(self._label).observe(now - self._last[index])
        elif not self._last:
            self._metrics.first_token.labels(self._label).observe(now - self._since)
        self._last[index] = now

    def close(self) -> None:
        """Once is enough: before the last piece of an answer leaves, or when there will be none."""
        if self._closed:
            return
        self._closed = True
        metrics, label = self._metrics, self._label
        written = 0 if self._silent else sum(self._written.values())
        metrics.prompt_tokens.labels(label).inc(self._prompt)
        metrics.cached_tokens.labels(label).inc(self._cached)
        metrics.completion_tokens.labels(label).inc(written)
        metrics.drafted_tokens.labels(label).inc(self._drafted)
        metrics.accepted_tokens.labels(label).inc(self._accepted)
        metrics.spent(self._key, prompt=self._prompt, completion=written)

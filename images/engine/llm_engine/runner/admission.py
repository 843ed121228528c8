"""Who of the queue begins: in the queue's order, as long as there are sequences, and cells for the prompt.

Who shares a longer prefix with a prompt that is being read than the cache knows waits for it, and whoever
comes behind may begin before.
"""

from __future__ import annotations

import time

from llm_engine.runner.branch import Branch, State
from llm_engine.runner.cache import Cache
from llm_engine.runner.counters import Counters
from llm_engine.runner.outbox import Outbox
from llm_engine.runner.waiting import Queue

# Beside its prompt, a newcomer is given room for this many tokens before it is admitted.
HEADROOM = 64


class Admission:
    """Moves branches from the queue to those that run, at most `parallel` of them."""

    def __init__(self, cache: Cache, queue: Queue, outbox: Outbox, counters: Counters, parallel: int) -> None:
        self._cache = cache
        self._queue = queue
        self._outbox = outbox
        self._counters = counters
        self._parallel = parallel

    def admit(self, running: list[Branch]) -> None:
        """Begin as many as can, and tell the others when their places changed."""
        queue, at, moved = self._queue, 0, False
        while at < len(queue.waiting) and len(running) < self._parallel:
            branch = queue.waiting[at]
            if branch.following() or self._should_follow(branch, running):
                at += 1
            elif self._start(branch, running):
                queue.waiting.pop(at)
                moved = True
            else:
                break
        if queue.waiting and (moved or queue.waiting[-1].position_told < 0):
            for branch, position in queue.positions():
                self._outbox.queued(branch, position)

    def _should_follow(self, branch: Branch, running: list[Branch]) -> bool:
        if branch.tells_prompt or not any(other.state is State.READING for other in running):
            return False  # a prompt of which each token is told takes nothing over
        if not self._cache.sharing:
            # What can be taken over there are whole copies, so only equal prompts are worth waiting for.
            return self._cache.checkpoints is not None and self._queue.follow_twin(branch, running)
        known = self._cache.known(branch.tokens[: branch.count - 1])
        return self._queue.follow(branch, running, known)

    def _start(self, branch: Branch, running: list[Branch]) -> bool:
        """Give a waiting branch a sequence, if its prompt will fit beside the running ones."""
        cache, tokens = self._cache, branch.tokens[: branch.count]
        known = tokens[:1] if branch.tells_prompt else tokens
        cached, woken = cache.foresee(known, branch.snap)
        promised = sum(other.pending for other in running)
        need = cache.active_cells + woken + promised + (len(tokens) - cached) + HEADROOM
        if need > cache.cells and running:
            return False
        opened = cache.open(known, branch.snap)
        if opened is None:
            return False
        sequence, cached = opened
        cached = cache.restore(sequence, known, cached, branch.snap)
        branch.sequence = sequence
        branch.computed = branch.shared_upto = cached
        branch.stops = [] if branch.media else [at for at in cache.places(tokens) if at > cached]
        if branch.uneven:
            branch.shared_upto = -1
        branch.state = State.READING
        if not branch.admitted:
            branch.admitted = time.monotonic()
            branch.cached = cached
            self._counters.cached_tokens += cached
            self._counters.prompt_tokens += branch.count
            self._outbox.started(branch)
        running.append(branch)
        return True

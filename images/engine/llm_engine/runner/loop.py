"""The loop that owns the context: admit, make room, build one batch, decode, sample, emit.

Invariants, between turns: every running branch has a sequence of its own; `branch.tokens[:branch.computed]`
are exactly the cells of that sequence; the cache never counts fewer cells than llama.cpp holds. One thread
calls all methods.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from llm_engine.runner.admission import Admission
from llm_engine.runner.apart import Apart
from llm_engine.runner.batch import Batch, logits_matrix
from llm_engine.runner.branch import Branch, State
from llm_engine.runner.cache import Cache
from llm_engine.runner.counters import Counters, tell
from llm_engine.runner.emit import Emitter
from llm_engine.runner.media import Projector, fill_part
from llm_engine.runner.messages import Stats
from llm_engine.runner.model import Context
from llm_engine.runner.outbox import STEP, Outbox
from llm_engine.runner.pace import PIECE, Pace
from llm_engine.runner.parts import Part, fill
from llm_engine.runner.share import TILE, order, share
from llm_engine.runner.speculate import Speculator
from llm_engine.runner.waiting import Queue


class Loop:
    """Continuous batching over one llama.cpp context."""

    def __init__(
        self,
        context: Context,
        cache: Cache,
        queue: Queue,
        outbox: Outbox,
        emitter: Emitter,
        speculator: Speculator,
        pace: Pace,
        projector: Projector | None,
        apart: Apart | None = None,
        *,
        parallel: int,
        outputs: int,
        n_ctx: int,
    ) -> None:
        self._context = context
        self.cache = cache
        self.queue = queue
        self.outbox = outbox
        self._emitter = emitter
        self._speculator = speculator
        self._rows = max(1, outputs - parallel + 1)
        """Rows of logits that prompts may have beside the one of each branch."""
        self.n_ctx = n_ctx
        self._batch = Batch(context.batch)
        self._pace = pace
        self._projector = projector
        self.apart = apart
        self._at_once = True
        self._flyer: Branch | None = None
        """Whose prompt is read apart while the streams of this turn go on."""
        self._flights = 0
        self._width = emitter.vocab.size
        self.running: list[Branch] = []
        self._spent = 0.0
        """Seconds of this turn that went to prefixes which were parked or restored."""
        self._media_filled = 0
        """Cells that images and sounds have taken in this turn."""
        self.counters = Counters()
        self._admission = Admission(cache, queue, outbox, self.counters, parallel)

    # Requests

    @property
    def busy(self) -> bool:
        return bool(self.running or self.queue.waiting)

    def submit(self, branches: list[Branch]) -> None:
        if self.queue.full:
            text = f"the queue of this model is full ({self.queue.limit} requests are waiting)"
            self.outbox.failed(branches[0].request_id, "busy", text)
            for branch in branches:
                branch.close()
            return
        for branch in branches:
            self.queue.add(branch)

    def cancel(self, request_id: int) -> None:
        """The client is gone: stop within this turn, keep what was computed for others."""
        mine = [b for b in (*self.running, *self.queue.waiting) if b.request_id == request_id]
        self.counters.cancelled += bool(mine)
        for branch in mine:
            self._retire(branch)
        self.outbox.flush()

    def fail(self, branch: Branch, kind: str, text: str) -> None:
        """End all branches of a request with an error."""
        self.outbox.failed(branch.request_id, kind, text)
        for other in (*self.running, *self.queue.waiting):
            if other.request_id == branch.request_id:
                self._retire(other)

    def _retire(self, branch: Branch) -> None:
        """Take a branch out, whatever state it is in."""
        if branch.state is State.OVER:
            return
        if branch.state is State.WAITING:
            self.queue.waiting.remove(branch)
        else:
            self.running.remove(branch)
            self._release(branch)
        branch.close()
        self._speculator.forget(branch)

    def _release(self, branch: Branch, *, keep: bool = True) -> None:
        """Give the sequence back, leaving in the cache what it computed if `keep`."""
        if self.apart is not None and branch.apart >= 0:
            self.apart.leave(branch)
        if branch.shared_upto >= 0 and keep:
            self.cache.publish(branch.sequence, branch.tokens[branch.shared_upto : branch.computed])
        computed = branch.tokens[: branch.computed]
        self.cache.close(branch.sequence, keep=keep and branch.request.cache, tokens=computed)
        branch.sequence = -1
        branch.computed = branch.shared_upto = 0

    # A turn

    def turn(self, *, admit: bool = True, at_once: bool = True) -> None:
        """One step for every running branch. Ends with all events of the turn sent. `at_once`: whether a
        prompt may be read while the streams go on.
        """
        started = time.monotonic()
        self._at_once = at_once
        self._land()
        self._expire(started)
        if admit or not self.running:
            self._admission.admit(self.running)
        self.cache.settle(in_pieces=any(branch.state is State.WRITING for branch in self.running))
        self._spent = time.monotonic() - started
        self._media_filled = self._fill_media() if self._projector is not None else 0
        if self._make_room():
            # Two decodes: measured, a batch of both kinds takes longer than one of each, and what the running
            # streams say leaves before the prompts are read.
            self._launch()
            self._compute([branch for branch in self.running if branch.state is State.WRITING])
            # A branch that wrote its first token just now had nothing planned for the second.
            if reading := [branch for branch in self._readers() if branch.fed]:
                self.outbox.flush()
                self._read(reading)
        seconds = time.monotonic() - started
        self.outbox.flush(soon=seconds < STEP and any(b.state is State.WRITING for b in self.running))
        self.counters.turns += 1
        self.counters.busy_seconds += time.monotonic() - started

    def _expire(self, now: float) -> None:
        for branch in (*self.running, *self.queue.waiting):
            if branch.deadline is not None and branch.deadline <= now:
                self._finish(branch, "deadline")

    def _finish(self, branch: Branch, reason: str) -> None:
        self._emitter.finish(branch, reason)
        self._retire(branch)

    def _fill_media(self) -> int:
        """Branches that have read up to an image or a sound take it in, one by one beside running streams; in
        pieces where that can be. How many cells that filled.
        """
        projector = self._projector
        reading = [b for b in self.running if b.media and b.state is State.READING] if projector else []
        streams = sum(branch.state is State.WRITING for branch in self.running)
        texts = any(not branch.media for branch in self._readers())
        most = self._pace.budget(streams, self._spent) // (2 if texts and streams else 1)
        filled = 0
        for branch in reading:
            chunk = branch.next_chunk()
            if chunk is None or chunk.start > branch.computed or branch not in self.running:
                continue
            if filled and streams:
                break
            assert projector is not None
            left = chunk.end - branch.computed
            count = min(left, most) if projector.in_order(chunk) else left
            if not self.cache.make_room(count):
                self._give_way()
                break
            speed = self._share_threads()
            started, position = time.monotonic(), branch.position(branch.computed)
            if count == chunk.tokens:
                verdict = projector.fill(self._context, chunk, branch.sequence, position)
            else:
                rows = chunk.embeddings[branch.computed - chunk.start :][:count]
                verdict = fill_part(self._context, rows, branch.sequence, position)
            if verdict != 0:
                self.cache.discard_from(branch.sequence, position)
                self.fail(branch, "internal", f"llama.cpp failed on an image or sound (code {verdict})")
                continue
            self._pace.read((time.monotonic() - started) * speed, count)
            branch.fed = count
            self._advance(Part(branch, 0, count, -1, 0))
            branch.fed = 0
            filled += count
        return filled

    # Building the batch

    def _make_room(self) -> bool:
        """Plan the turn and free cells for it; False where there is nothing to compute."""
        while self.running:
            if self.cache.make_room(self._plan()):
                return True
            if not self._give_way():
                return False
        return False

    def _readers(self) -> list[Branch]:
        """Whose prompts could be read now: all but the one in the air."""
        flying = self.apart.flying if self.apart is not None else None
        return [b for b in self.running if b.state is State.READING and b is not flying]

    def _next_flyer(self, reading: list[Branch], *, streams: bool) -> Branch | None:
        """Whose prompt is in the air, or could be from this turn on."""
        apart = self.apart
        if apart is None or apart.busy:
            return apart.flying if apart is not None else None
        if not (streams and self._at_once and apart.threads and self._pace.bears(self._speed(apart.threads))):
            return None
        return apart.choose(order(reading, oldest_first=self._flights % 2 == 0))

    def _launch(self) -> None:
        """Begin to read a prompt while the streams go on."""
        branch, apart = self._flyer, self.apart
        if branch is None or apart is None or apart.busy:
            return
        if apart.branch is not None and apart.branch is not branch:
            apart.leave(apart.branch)
        if apart.take(branch):
            fill(apart.batch, [branch])
            apart.begin()
            self._flights += 1
        else:
            branch.fed = 0

    def _land(self) -> None:
        """Take in what was read while the streams went on; where there are none any more, without delay."""
        apart = self.apart
        if apart is None or not apart.busy:
            return
        flown = apart.fetch(wait=not any(branch.state is State.WRITING for branch in self.running))
        branch = apart.branch
        if flown is None or branch is None:
            return
        self.counters.decode_seconds += flown.seconds
        if flown.verdict != 0:
            self.counters.decode_failures += 1
            apart.give_up(branch, flown.verdict)
            return
        if not self.cache.make_room(flown.tokens):  # the next plan finds some
            apart.leave(branch)
            return
        branch.fed = flown.tokens
        rows = apart.batch.outputs if branch.fed == apart.batch.size else 0
        self._computed([Part(branch, 0, branch.fed, 0, rows)], apart.handle, rows)
        self.outbox.flush(soon=True)

    def _speed(self, elsewhere: int) -> float:
        """What is left of the main context's speed while so many of its threads are elsewhere."""
        return 1 - elsewhere / self._context.threads

    def _share_threads(self) -> float:
        """The main context computes with the threads that are left; its speed with them."""
        elsewhere = self.apart.computing if self.apart is not None else 0
        self._context.compute_with(self._context.threads - elsewhere)
        return self._speed(elsewhere)

    def _read(self, reading: list[Branch]) -> None:
        """Compute the planned parts of prompts: one by one apart where that is worth it, or together."""
        apart = self.apart
        together = []
        here = apart.branch if apart is not None else None
        # Who is apart already comes first, and makes room for the next.
        for branch in sorted(reading, key=lambda b: b is not here):
            if branch.state is not State.READING:
                continue  # another answer to the same request has failed meanwhile
            if apart is None or not apart.take(branch):
                together.append(branch)
                continue
            self._decode_apart(apart, branch)
            self.outbox.flush()
        if apart is not None and apart.branch in reading:
            # Who would not be ready in this turn anyhow is read apart soon, and cheaper.
            together = [b for b in together if b.fed == b.pending or b.media]
        # Whole tiles first: behind a broken one no tile would belong to one sequence alone.
        together.sort(key=lambda b: b.fed % TILE != 0)
        self._compute([branch for branch in together if branch.state is State.READING])

    def _compute(self, branches: list[Branch]) -> None:
        """Decode the planned tokens of branches that are in the same context."""
        if parts := fill(self._batch, branches):
            self._decode(parts)

    def _plan(self) -> int:
        """Decide how many tokens each branch gets this turn; the sum."""
        writing = [b for b in self.running if b.state is State.WRITING]
        reading = self._readers()
        flyer = self._flyer = self._next_flyer(reading, streams=bool(writing))
        room = self._context.batch
        for branch in writing:
            branch.fed = 1
        room -= len(writing)
        began = time.monotonic()
        self._speculator.propose(writing, self.n_ctx, room)
        spent = self._spent + time.monotonic() - began
        proposed = sum(len(branch.proposal) for branch in writing)
        rows = self._rows
        for branch in reading:
            branch.proposal = []
            chunk = branch.next_chunk()
            upto = chunk.start if chunk else branch.stops[0] if branch.stops else branch.count
            branch.reach = max(0, upto - branch.computed)
            if branch.tells_prompt:
                branch.reach = min(branch.reach, rows)
                rows -= branch.reach
        beside = [branch for branch in reading if branch is not flyer]
        speed = 1.0
        if (apart := self.apart) is not None and (flyer is not None or apart.busy):
            speed = self._speed(apart.threads)
            # Who is worth it waits for his turn there.
            beside = [branch for branch in beside if branch is not apart.branch and not apart.suits(branch)]
        budget = self._pace.budget(len(writing), spent, speed)
        if writing:  # who waits for the next token waits for the media of this turn as well
            budget -= self._media_filled
        for branch in reading:
            branch.fed = 0
        share(beside, budget, self._context.batch, oldest_first=self.counters.turns % 2 == 0)
        if flyer in reading:
            # With others waiting, they take turns.
            turns = len(reading) - 1 > len(beside)
            flyer.fed = min(flyer.reach, self._context.batch, 2 * PIECE if turns else self._context.batch)
        flown = flyer.fed if flyer is not None else 0
        return len(writing) + proposed + flown + sum(branch.fed for branch in beside)

    def _give_way(self, who: Branch | None = None) -> bool:
        """The running branches need more cells than there are: one goes back to the queue, the youngest
        unless told.

        A branch that is alone and does not fit never will, and fails.
        """
        youngest = who or max(self.running, key=lambda b: (b.arrived, b.index))
        if len(self.running) == 1:
            text = f"the context is full: {youngest.count} tokens do not fit into {self.cache.cells} cells"
            self.fail(youngest, "context", text)
            return False
        self.counters.preemptions += 1
        self._set_back(youngest)
        return True

    def _set_back(self, branch: Branch, *, keep: bool = True) -> None:
        """Back to the queue with all it has said; it goes on from there when its turn comes."""
        self.running.remove(branch)
        self._release(branch, keep=keep)
        self._speculator.forget(branch)
        branch.proposal = []
        branch.fed = 0
        branch.state = State.WAITING
        self.queue.put_back(branch)

    # Computing it

    def _decode(self, parts: list[Part]) -> None:
        started, speed = time.monotonic(), self._share_threads()
        verdict = self._batch.decode(self._context.handle)
        if verdict != 0:
            self._recover(parts, verdict)
            return
        self._computed(parts, self._context.handle, self._batch.outputs, started, speed)

    def _decode_apart(self, apart: Apart, branch: Branch) -> None:
        """Read the planned part of one prompt apart, while nothing else is computed."""
        started = time.monotonic()
        parts = fill(apart.batch, [branch])
        if (verdict := apart.decode()) != 0:
            self.counters.decode_failures += 1
            apart.give_up(branch, verdict)
            return
        self._computed(parts, apart.handle, apart.batch.outputs, started)

    def _computed(
        self, parts: list[Part], handle: Any, outputs: int, started: float | None = None, speed: float = 1.0
    ) -> None:
        """A batch is decoded: its cells are filled, its logits are there. `started`: when, if it is to count
        for the pace, and with which part of the threads.
        """
        logits = logits_matrix(handle, outputs, self._width) if outputs else None
        if started is not None:
            seconds = time.monotonic() - started
            self.counters.decode_seconds += seconds
            if parts[0].branch.state is State.WRITING:
                self._pace.wrote(seconds * speed)
            else:
                self._pace.read(seconds * speed, parts[-1].end)
        advanced = [part for part in parts if self._advance(part)]
        for part in advanced:
            if part.rows and logits is not None:
                self._sample(part, logits[part.row : part.row + part.rows])

    def _advance(self, part: Part) -> bool:
        """The cells of this part are filled. What was read is shared at once; what was written, when it
        ends. False where they are lost again, as what was read apart could not be moved.
        """
        branch = part.branch
        self.cache.wrote(branch.sequence, part.end - part.start)
        branch.computed += branch.fed
        if self.apart is not None and branch.apart >= 0:
            if not self.apart.move(branch):
                return False
            if not branch.pending:
                self.apart.leave(branch)
        if branch.state is State.READING and branch.shared_upto >= 0 and branch.request.cache:
            self.cache.publish(branch.sequence, branch.tokens[branch.shared_upto : branch.computed])
            branch.shared_upto = branch.computed
        if branch.stops and branch.computed == branch.stops[0]:
            branch.stops.pop(0)
            if branch.request.cache:
                self.cache.copy(branch.sequence, branch.tokens[: branch.computed])
        return True

    def _sample(self, part: Part, logits: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
        branch = part.branch
        if branch.tells_prompt:
            self._emitter.read(branch, logits, branch.computed)
            if branch.pending:
                return
            logits = logits[-1:]
        if branch.state is State.READING:
            branch.state = State.WRITING
            branch.first_token = branch.first_token or time.monotonic()
        proposal, branch.proposal = branch.proposal, []
        before = branch.generated
        reason, hits = self._emitter.take(branch, logits, proposal)
        branch.computed += hits
        self.counters.generated_tokens += branch.generated - before
        if proposal:
            branch.drafted += len(proposal)
            branch.accepted += hits
            self.counters.drafted_tokens += len(proposal)
            self.counters.accepted_tokens += hits
            self._speculator.learn(branch, len(proposal), hits)
            if hits < len(proposal):
                kept = branch.position(branch.computed)
                self.cache.rewind(branch.sequence, kept, len(proposal) - hits)
        if reason is not None:
            if reason.startswith("!"):
                self.fail(branch, "internal", reason[1:])
            else:
                self._finish(branch, reason)
        elif branch.count >= self.n_ctx:
            self._overflow(branch)

    def _overflow(self, branch: Branch) -> None:
        """The sequence is as long as it may be: forget the older half of what need not stay, or end it."""
        keep = branch.keep(self._emitter.vocab.bos, self.n_ctx - self.n_ctx // 8)
        if not branch.request.shift or branch.media:
            self._finish(branch, "length")
            return
        dropped = max(1, (branch.count - keep) // 2)
        kept = np.concatenate((branch.tokens[:keep], branch.tokens[keep + dropped : branch.count]))
        if self.cache.shift(branch.sequence, keep, dropped):
            branch.computed -= dropped
            branch.shared_upto = -1
        else:
            self.running.remove(branch)
            self._release(branch)
            branch.state = State.WAITING
            self.queue.put_back(branch)
        branch.tokens[: len(kept)] = kept
        branch.count = len(kept)

    # When llama.cpp refuses

    def _recover(self, parts: list[Part], verdict: int) -> None:
        """Nothing of this batch counts as computed. Forget what is idle and try again; where there is nothing
        left to forget, split the batch, which shows who cannot be computed.
        """
        self.counters.decode_failures += 1
        print(f"llama_decode returned {verdict} for {self._batch.size} tokens", file=sys.stderr, flush=True)
        for part in parts:
            branch = part.branch
            branch.proposal = []
            if not self.cache.discard_from(branch.sequence, branch.position(branch.computed)):
                self._begin_again(branch, verdict)
        if verdict in (1, 2) and self.cache.evict(max(256, 2 * self._batch.size)):
            return
        if verdict < 0 and len(parts) == 1:
            self._failed(parts[0].branch, verdict)
            return
        for part in parts:
            if part.branch in self.running:
                self._alone(part)

    def _begin_again(self, branch: Branch, verdict: int) -> None:
        """Its state went on with tokens that may not be computed rightly: it is read anew, but only once."""
        if branch.begun_again or branch not in self.running:
            self._failed(branch, verdict)
            return
        branch.begun_again = True
        self._set_back(branch, keep=False)

    def _failed(self, branch: Branch, verdict: int) -> None:
        text = f"llama.cpp failed to compute this request (code {verdict})"
        self.fail(branch, "internal", text)

    def _alone(self, part: Part) -> None:
        """Compute one branch by itself, so that only the guilty one fails. One for which there is no room
        beside the others waits until there is.
        """
        branch = part.branch
        last = branch.computed + branch.fed == branch.count
        self._batch.clear()
        tokens = branch.tokens[branch.computed : branch.computed + branch.fed]
        rows = len(tokens) if branch.tells_prompt else 1 if last else 0
        position = branch.position(branch.computed)
        self._batch.put(branch.sequence, position, tokens, outputs=rows)
        verdict = self._batch.decode(self._context.handle)
        if verdict != 0:
            self.cache.discard_from(branch.sequence, position)
            if verdict == 1:
                self._give_way(branch)
            else:
                self._failed(branch, verdict)
            return
        logits = logits_matrix(self._context.handle, rows, self._width) if rows else None
        alone = Part(branch, 0, self._batch.size, 0, rows)
        self._advance(alone)
        if logits is not None:
            self._sample(alone, logits)

    def stats(self) -> Stats:
        return tell(self.counters, self.running, self.cache, len(self.queue))

"""Embeddings and reranking: many inputs in one batch, from as many requests as wait.

Each input is a sequence of its own in a context made for it, so inputs never see each other. Vectors leave as
float32 bytes. The context is made on first use, from the same weights. As llama.cpp computes an input as
one piece, and keeps what the output layer makes of each of its tokens, that context takes a hundred kilobytes
and more per token: it is as long as the inputs that came, and grows with them where there is memory. A model
that only embeds has all of it from its load on, as the scheduler reckoned.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.batch import Batch
from llm_engine.runner.library import lib
from llm_engine.runner.messages import EmbedResult, RerankResult
from llm_engine.runner.model import Context, LoadError, Model
from llm_engine.runner.pace import Pace
from llm_engine.runner.protocol import encode
from llm_engine.runner.service import failure
from llm_engine.runner.vocab import TokenArray

# Inputs computed side by side; more gain nothing once the batch fills the processor.
SEQUENCES = 64
# Long enough to keep the processor busy, short enough that attention over strangers costs little.
TOKENS = 512

# The pooling kinds that make one vector of an input. Without any there is one for each token, and ranks are
# asked for in another way.
ONE_VECTOR = ("mean", "cls", "last")

Vector = NDArray[np.float32]


@dataclass(eq=False)
class Job:
    """One request: its inputs, what is computed of them, and how its answer looks."""

    request_id: int
    inputs: list[TokenArray]
    normalize: bool = True
    dimensions: int | None = None
    rank: bool = False
    vectors: list[Vector | None] = field(default_factory=list)
    left: int = 0

    def __post_init__(self) -> None:
        self.vectors = [None] * len(self.inputs)
        self.left = len(self.inputs)


class Embedder:
    """Owned by the computing thread; `step` computes one batch."""

    def __init__(
        self,
        model: Model,
        pooling: str,
        longest: int,
        send: Callable[[bytes], None],
        pace: Pace,
        *,
        whole: bool = False,
        free: Callable[[], int] | None = None,
    ) -> None:
        """`whole`: for inputs of any length from the start. `free`: how much memory there is to grow into,
        where nobody but us would notice that there is none."""
        self._model = model
        self._most = max(TOKENS, longest)
        self._free = free
        self.room = self._most if whole else TOKENS
        self.context = self._context(pooling)
        self.pooling = self.context.pooling
        self.longest = longest
        self._width = int(lib.llama_model_n_cls_out(model.handle)) if self.pooling == "rank" else model.width
        self._send = send
        self.pace = pace
        self._batch = Batch(self.room)
        self._waiting: deque[tuple[Job, int]] = deque()

    def _context(self, pooling: str) -> Context:
        room = self.room
        return Context(self._model, cells=room, batch=room, ubatch=room, sequences=SEQUENCES, pooling=pooling)

    def _grow(self, tokens: int) -> None:
        """Room for an input; LoadError where there is no memory for it."""
        if tokens <= self.room:
            return
        before, wanted = self.room, min(1 << (tokens - 1).bit_length(), self._most)
        if self._free is not None:
            more, free = self.cost(wanted) - self.cost(before), self._free()
            if more > free:
                raise LoadError(
                    f"an input of {tokens} tokens takes about {more >> 20} MiB to embed with this model, and "
                    f"{free >> 20} MiB are free"
                )
        self.context.free()
        try:
            self.room = wanted
            self.context = self._context(self.pooling)
        except LoadError:
            self.room = before
            self.context = self._context(self.pooling)
            raise
        self._batch = Batch(self.room)

    def cost(self, room: int) -> int:
        """About what a context of so many tokens takes: the output of each, which sees which, cells, and what
        is between layers."""
        per_token = 4 * self._model.vocabulary + 6 * room + 32 * self._model.width
        return room * (per_token + self.context.cell_bytes)

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, job: Job) -> None:
        if job.left == 0:
            self._answer(job)
        self._waiting.extend((job, i) for i in range(len(job.inputs)))

    def cancel(self, request_id: int) -> None:
        self._waiting = deque(item for item in self._waiting if item[0].request_id != request_id)

    def step(self, streams: int = 0) -> None:
        """Compute as many waiting inputs as fit into one batch, and beside running streams into their gap,
        but at least one: an input cannot be cut. Whatever goes wrong with them ends their requests alone.
        """
        most = self.pace.budget(streams)
        chosen: list[tuple[Job, int]] = []
        first, which = self._waiting[0]
        try:
            self._grow(len(first.inputs[which]))
        except LoadError as error:
            self._fail(first, str(error))
            return
        self._batch.clear()
        while self._waiting and len(chosen) < SEQUENCES:
            job, at = self._waiting[0]
            tokens = job.inputs[at]
            if chosen and self._batch.size + len(tokens) > most:
                break
            self._batch.put(len(chosen), 0, tokens, outputs=len(tokens))
            chosen.append(self._waiting.popleft())
        started, size = time.monotonic(), self._batch.size
        try:
            self._embed(chosen)
            self.pace.read(time.monotonic() - started, size)
        except Exception as error:  # noqa: BLE001 - told to those whose inputs these are
            traceback.print_exception(error)
            for job, _ in chosen:
                self._fail(job, f"the embedding failed: {type(error).__name__}: {error}")

    def _embed(self, chosen: list[tuple[Job, int]]) -> None:
        verdict = self._compute()
        if verdict == 0:
            for row, (job, at) in enumerate(chosen):
                self._store(job, at, self._read(row))
        elif len(chosen) == 1:
            self._fail(chosen[0][0], f"llama.cpp failed to compute the embedding (code {verdict})")
        else:
            for job, at in chosen:
                self._alone(job, at)

    def _alone(self, job: Job, at: int) -> None:
        """An input of a batch that failed, by itself: only the request that cannot be computed fails."""
        if job.left < 0:
            return
        self._batch.clear()
        self._batch.put(0, 0, job.inputs[at], outputs=len(job.inputs[at]))
        verdict = self._compute()
        if verdict == 0:
            self._store(job, at, self._read(0))
        else:
            self._fail(job, f"llama.cpp failed to compute the embedding (code {verdict})")

    def _compute(self) -> int:
        context = self.context
        view = self._batch.view(0, self._batch.size)
        if context.memory is None or not context.memory:
            return int(lib.llama_encode(context.handle, view))
        lib.llama_memory_clear(context.memory, False)
        return int(lib.llama_decode(context.handle, view))

    def _read(self, sequence: int) -> Vector:
        pointer = lib.llama_get_embeddings_seq(self.context.handle, sequence)
        return np.ctypeslib.as_array(pointer, (self._width,)).astype(np.float32, copy=True)

    def _store(self, job: Job, at: int, vector: Vector) -> None:
        if job.left < 0:
            return
        if not bool(np.isfinite(vector).all()):
            self._fail(job, "the embedding contains NaN or infinite values")
            return
        job.vectors[at] = vector if job.rank else shape(vector, job.normalize, job.dimensions)
        job.left -= 1
        if job.left == 0:
            self._answer(job)

    def _fail(self, job: Job, text: str) -> None:
        if job.left >= 0:
            job.left = -1
            self._send(failure(job.request_id, "internal", text))
            self.cancel(job.request_id)

    def _answer(self, job: Job) -> None:
        counts = [len(tokens) for tokens in job.inputs]
        done = [vector for vector in job.vectors if vector is not None]
        result: EmbedResult | RerankResult
        if job.rank:
            result = RerankResult([float(vector[0]) for vector in done], counts)
        else:
            result = EmbedResult([vector.tobytes() for vector in done], counts)
        self._send(encode("reply", job.request_id, result))


def shape(vector: Vector, normalize: bool, dimensions: int | None) -> Vector:
    """Cut to `dimensions`, then to length one."""
    if dimensions:
        vector = vector[:dimensions]
    if normalize:
        norm = float(np.linalg.norm(vector))
        vector = vector / norm if norm > 0 else vector
    return np.ascontiguousarray(vector, dtype=np.float32)


def truncate(tokens: TokenArray, longest: int, *, keep_last: bool) -> TokenArray:
    """The beginning of an input; its closing token stays where the model adds one."""
    if len(tokens) <= longest:
        return tokens
    if keep_last and longest > 1:
        return np.append(tokens[: longest - 1], tokens[-1])
    return tokens[:longest]


def pair(vocab_handle: object, query: TokenArray, document: TokenArray) -> TokenArray:
    """A query and a document as a reranker was trained to see them."""
    bos, eos, sep = (getattr(lib, f"llama_vocab_{name}")(vocab_handle) for name in ("bos", "eos", "sep"))
    end = eos if eos >= 0 else sep
    parts: list[TokenArray] = []

    def special(token: int, wanted: bool) -> None:
        if wanted and token >= 0:
            parts.append(np.array([token], dtype=np.int32))

    adds_eos = bool(lib.llama_vocab_get_add_eos(vocab_handle))
    special(bos, bool(lib.llama_vocab_get_add_bos(vocab_handle)))
    parts.append(query)
    special(end, adds_eos)
    special(sep, bool(lib.llama_vocab_get_add_sep(vocab_handle)))
    parts.append(document)
    special(end, adds_eos)
    return np.concatenate(parts)


def rerank_template(model: Model) -> str | None:
    raw = lib.llama_model_chat_template(model.handle, b"rerank")
    return raw.decode("utf-8", "replace") if raw else None

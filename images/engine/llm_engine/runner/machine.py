"""A loaded model with what serves it: the generating loop, the embedder, or both, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_engine.runner import pages
from llm_engine.runner.apart import Apart
from llm_engine.runner.branch import State
from llm_engine.runner.cache import Cache
from llm_engine.runner.draft import Drafter
from llm_engine.runner.embed import TOKENS, Embedder, Job
from llm_engine.runner.emit import Emitter
from llm_engine.runner.library import lib
from llm_engine.runner.loop import Loop
from llm_engine.runner.media import Projector
from llm_engine.runner.messages import LoadSpec, RunnerInfo, Stats
from llm_engine.runner.model import (
    IDLE_CELLS,
    IDLE_SEQUENCES,
    MAX_SEQUENCES,
    SPARE_STATES,
    Context,
    LoadError,
    Model,
    memory_by_device,
)
from llm_engine.runner.outbox import Outbox
from llm_engine.runner.pace import Pace
from llm_engine.runner.parking import default_budget
from llm_engine.runner.room import available_ram, trim_heap
from llm_engine.runner.service import Writer, failure
from llm_engine.runner.speculate import Speculator
from llm_engine.runner.vocab import Vocab
from llm_engine.runner.waiting import Queue


class Machine:
    """Everything the computing thread owns."""

    def __init__(self, spec: LoadSpec, writer: Writer, on_progress: Callable[[float], bool]) -> None:
        started = time.monotonic()
        self.spec = spec
        self._writer = writer
        self.model = Model(spec, on_progress)
        if not self.model.mapped:
            pages.enlarge()
        self.vocab = Vocab(self.model.handle)
        self.n_ctx_train = self.model.trained_context
        self.generates = not (spec.embedding or self.model.encoder_only or self.model.pooling != "none")
        """A model with a pooling kind of its own was trained to embed, and only does that."""
        self.projector = Projector(self.model) if spec.mmproj is not None else None
        self.loop: Loop | None = None
        self._pace: Pace | None = None
        self._embedders: dict[str, Embedder] = {}
        if self.generates:
            self.loop = self._make_loop()
        else:
            self.embedder(None)
        self.load_seconds = time.monotonic() - started

    # Contexts

    def _make_loop(self) -> Loop:
        spec, model = self.spec, self.model
        parallel = max(1, spec.num_parallel)
        cells = spec.cells or spec.num_ctx * parallel
        caches = spec.prefix_cache and not model.forgets
        whole = caches and model.stateful
        # Of a window's cells llama.cpp copies out only those still in it, so nothing of them is parked.
        window = caches and not whole and model.sliding_window > 0
        sharing = caches and not whole
        if sharing:
            sequences = min(MAX_SEQUENCES // 2 if window else MAX_SEQUENCES, parallel + IDLE_SEQUENCES)
        else:
            sequences = min(MAX_SEQUENCES, parallel + (SPARE_STATES if whole else 0))
        parallel = min(parallel, sequences)
        parking = spec.park_bytes if caches and not window else 0
        parking = default_budget() if parking is None else parking
        # Elsewhere than on a processor the cells of others cost next to nothing.
        on_gpu = memory_by_device()[2] > 0
        apart = sharing and not window and not on_gpu
        spare = apart or (sharing and parking > 0)
        outputs = parallel * (1 + max(spec.lookup, spec.draft_max))
        batch = min(max(spec.num_batch, outputs), max(cells, 1))
        context = Context(
            model,
            cells=cells,
            batch=batch,
            sequences=2 * sequences if window else min(MAX_SEQUENCES, sequences + spare),
            outputs=outputs,
            # In a window's cache each part of a batch must be known to be kept before the next one comes.
            ubatch=batch if window else 512,
        )
        idle = spec.idle_cells
        if idle is None:
            idle = context.cells if on_gpu else IDLE_CELLS
        outbox = Outbox(self._writer.send)
        self._pace = Pace(spec.gap_ms / 1000, min(context.batch, max(1, spec.num_batch)))
        cache = Cache(
            context, sharing=sharing, stateful=whole, parking=parking, idle=idle, scratch=apart, twins=window
        )
        return Loop(
            context,
            cache,
            Queue(spec.max_queue),
            outbox,
            Emitter(self.vocab, outbox),
            self._speculator(parallel, context.cells),
            self._pace,
            self.projector,
            Apart(model, context, cache, at_once=spec.draft is None) if apart else None,
            parallel=parallel,
            outputs=outputs,
            n_ctx=min(spec.num_ctx, context.cells),
        )

    def _speculator(self, parallel: int, cells: int) -> Speculator:
        spec = self.spec
        if self.model.stateful:  # a refused guess could not be taken back
            return Speculator(0)
        drafter = Drafter(spec, self.vocab, parallel, cells) if spec.draft is not None else None
        return Speculator(spec.lookup, drafter, spec.draft_max)

    def embedder(self, pooling: str | None) -> Embedder:
        """The embedder for a pooling kind: as asked, else the model's own, else the mean. Each has a
        context of its own, so those that have nothing to do make way for another kind."""
        own = self.model.pooling
        kind = pooling or (own if own != "none" else "mean")
        if kind not in self._embedders:
            for other in [name for name, made in self._embedders.items() if not made.busy]:
                self._embedders.pop(other).context.free()
            longest = self.longest_input
            self._embedders[kind] = Embedder(
                self.model,
                kind,
                longest,
                self._writer.send,
                Pace(self.spec.gap_ms / 1000, TOKENS, beside=self._pace),
                whole=not self.generates,
                free=None if memory_by_device()[2] else available_ram,
            )
        return self._embedders[kind]

    @property
    def longest_input(self) -> int:
        """The longest text that can be embedded, in tokens."""
        trained = self.n_ctx_train or self.spec.num_ctx
        return max(4, min(self.spec.num_ctx, trained))

    # Turns

    @property
    def busy(self) -> bool:
        return (self.loop is not None and self.loop.busy) or any(e.busy for e in self._embedders.values())

    def turn(self) -> None:
        embedders = [embedder for embedder in self._embedders.values() if embedder.busy]
        running = self.loop.running if self.loop is not None else []
        streams = sum(branch.state is State.WRITING for branch in running)
        # The gap between the streams' tokens is for all that is read in it.
        prompts = any(branch.state is State.READING for branch in running)
        shares = len(embedders) + prompts
        if embedders and self.loop is not None and self.loop.apart is not None:
            self.loop.apart.hurry()  # an embedder computes with all threads
        for embedder in embedders:
            embedder.pace.share = 1 / shares
            embedder.step(streams)
        if self.loop is not None and self.loop.busy:
            if self._pace is not None:
                self._pace.share = 1 / max(shares, 1)
            self.loop.turn(admit=not self._writer.behind, at_once=not embedders)

    def embed(self, job: Job, pooling: str | None) -> None:
        try:
            embedder = self.embedder(pooling)
        except LoadError as error:  # the streams beside it have their memory
            self._writer.send(failure(job.request_id, "internal", str(error)))
        else:
            embedder.submit(job)

    def cancel(self, request_id: int) -> None:
        if self.loop is not None:
            self.loop.cancel(request_id)
        for embedder in self._embedders.values():
            embedder.cancel(request_id)

    def unpark(self, size: int) -> int:
        """Give main memory back to the system that idle prefixes take; how many bytes it was."""
        freed = self.loop.cache.unpark(size) if self.loop is not None else 0
        if freed < size and self.loop is not None and self.loop.apart is not None:
            freed += self.loop.apart.free()
        for kind in [kind for kind, made in self._embedders.items() if not made.busy]:
            if freed < size and self.generates:  # made again when it is asked for
                idle = self._embedders.pop(kind)
                freed += idle.cost(idle.room)
                idle.context.free()
        if freed:
            trim_heap()
        return freed

    # What it is

    def stats(self) -> Stats:
        return self.loop.stats() if self.loop is not None else Stats()

    def info(self) -> RunnerInfo:
        model, vocab, loop = self.model, self.vocab, self.loop
        memory, size, vram = memory_by_device()
        return RunnerInfo(
            n_ctx=loop.n_ctx if loop is not None else self.longest_input,
            n_ctx_train=self.n_ctx_train,
            cells=loop.cache.cells if loop is not None else 0,
            n_vocab=vocab.size,
            n_embd=model.width,
            pooling=model.pooling,
            generates=self.generates,
            architecture=model.architecture,
            description=model.description,
            bos=vocab.bos,
            eos=vocab.eos,
            eot=vocab.eot,
            bos_text=vocab.text_of(vocab.bos),
            eos_text=vocab.text_of(vocab.eos),
            eot_text=vocab.text_of(vocab.eot),
            add_bos=vocab.add_bos,
            add_eos=vocab.add_eos,
            chat_template=model.chat_template,
            size=size,
            size_vram=vram,
            memory=memory,
            cache_mode=loop.cache.mode if loop is not None else "none",
            vision=self.projector is not None and self.projector.vision,
            audio=self.projector is not None and self.projector.audio,
            can_shift=loop is not None and loop.cache.can_shift,
            has_encoder=bool(lib.llama_model_has_encoder(model.handle)),
            n_params=int(lib.llama_model_n_params(model.handle)),
            system_info=lib.llama_print_system_info().decode(),
            fim=vocab.fim_tokens(),
            load_seconds=self.load_seconds,
            mapped=model.mapped,
        )

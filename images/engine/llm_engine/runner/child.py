"""A runner's life: say hello, load what the server asks for, serve until told to stop."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import time
from typing import Any

from llm_engine.runner import library, protocol
from llm_engine.runner.cache import Cache
from llm_engine.runner.emit import Emitter
from llm_engine.runner.intake import ContextError, branches, tokens_of
from llm_engine.runner.library import lib
from llm_engine.runner.loop import Loop
from llm_engine.runner.messages import GenerateRequest, LoadSpec, RunnerInfo
from llm_engine.runner.model import (
    IDLE_SEQUENCES,
    MAX_SEQUENCES,
    SPARE_STATES,
    Context,
    LoadError,
    Model,
    memory_by_device,
)
from llm_engine.runner.outbox import Outbox
from llm_engine.runner.protocol import encode
from llm_engine.runner.service import Reader, Work, Writer, failure, pump
from llm_engine.runner.speculate import Speculator
from llm_engine.runner.vocab import Vocab
from llm_engine.runner.waiting import Queue


def serve(sock: socket.socket) -> None:
    """Never returns normally: the process ends with the exit code 0 when the server leaves or says stop."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C at the terminal is for the server, which then stops us
    writer = Writer(sock)
    writer.send(encode("hello", 0, {"version": protocol.VERSION, "pid": os.getpid()}))
    inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
    reader = Reader(sock, inbox)
    wanted: queue.SimpleQueue[LoadSpec] = queue.SimpleQueue()

    def on_load(_id: int, payload: Any) -> None:
        wanted.put(protocol.load_spec(payload))

    def on_stop(_id: int, _payload: Any) -> Work:
        return sys.exit

    reader.handle("load", on_load)
    reader.handle("stop", on_stop)
    reader.start(writer)
    spec = wanted.get()
    try:
        Runner(spec, reader, writer, inbox).run()
    except LoadError as error:
        writer.send(encode("load_failed", 0, str(error)))
        writer.close()
    except SystemExit:
        writer.close()
    # llama.cpp's destructors are not needed for a process that ends, and take their time with a large model.
    sys.stderr.flush()
    os._exit(0)


class Runner:
    """A loaded model and what serves it."""

    def __init__(
        self, spec: LoadSpec, reader: Reader, writer: Writer, inbox: queue.SimpleQueue[Work]
    ) -> None:
        started = time.monotonic()
        self._writer = writer
        self._inbox = inbox
        self._spec = spec
        library.start(verbose=bool(os.environ.get("LLM_ENGINE_LLAMA_LOG")))
        self._model = Model(spec, self._on_progress)
        self._vocab = Vocab(self._model.handle)
        self._n_ctx_train = self._model.trained_context
        self._context, self._cache = self._make_context()
        self._n_ctx = min(spec.num_ctx, self._context.cells)
        self._loop = self._make_loop()
        self._register(reader)
        info = self._info(time.monotonic() - started)
        writer.send(encode("ready", 0, info))

    def _on_progress(self, fraction: float) -> bool:
        self._writer.send(encode("progress", 0, fraction))
        return True

    def _make_context(self) -> tuple[Context, Cache]:
        spec, model = self._spec, self._model
        parallel = max(1, spec.num_parallel)
        cells = spec.cells or spec.num_ctx * parallel
        sharing = spec.prefix_cache and not model.stateful and model.sliding_window == 0
        if sharing:
            sequences = min(MAX_SEQUENCES, parallel + IDLE_SEQUENCES)
        else:
            sequences = parallel + (SPARE_STATES if model.stateful else 0)
        outputs = parallel * (1 + max(spec.lookup, spec.draft_max))
        batch = max(spec.num_batch, outputs)
        context = Context(
            model, cells=cells, batch=min(batch, max(cells, 1)), sequences=sequences, outputs=outputs
        )
        return context, Cache(context, sharing=sharing)

    def _make_loop(self) -> Loop:
        spec = self._spec
        outbox = Outbox(self._writer.send)
        return Loop(
            self._context,
            self._cache,
            Queue(spec.max_queue),
            outbox,
            Emitter(self._vocab, outbox),
            Speculator(spec.lookup, allowed=not self._model.stateful),
            parallel=max(1, spec.num_parallel),
            n_ctx=self._n_ctx,
            gap_seconds=spec.gap_ms / 1000,
            chunk=min(self._context.batch, max(1, spec.num_batch)),
        )

    def run(self) -> None:
        loop, writer = self._loop, self._writer
        pump(self._inbox, lambda: loop.busy, lambda: loop.turn(admit=not writer.behind))

    # What the server may ask

    def _register(self, reader: Reader) -> None:
        reader.handle("generate", self._on_generate)
        reader.handle("cancel", lambda request_id, _: lambda: self._loop.cancel(request_id))
        reader.handle("tokenize", self._on_tokenize)
        reader.handle("detokenize", self._on_detokenize)
        reader.handle("stats", self._on_stats)

    def _reply(self, request_id: int, payload: object) -> None:
        self._writer.send(encode("reply", request_id, payload))

    def _on_generate(self, request_id: int, payload: Any) -> Work | None:
        request: GenerateRequest = protocol.build(GenerateRequest, payload)
        try:
            made = branches(self._vocab, self._n_ctx_train, self._n_ctx, request_id, request)
        except ContextError as error:
            self._writer.send(failure(request_id, "context", str(error)))
            return None
        return lambda: self._loop.submit(made)

    def _on_tokenize(self, request_id: int, payload: Any) -> None:
        tokens = self._vocab.tokenize(
            payload["text"], add_special=payload["add_special"], parse_special=payload["parse_special"]
        )
        self._reply(request_id, tokens.tolist())

    def _on_detokenize(self, request_id: int, payload: Any) -> None:
        ids = tokens_of(self._vocab, payload, add_special=False)
        self._reply(request_id, self._vocab.detokenize(ids))

    def _on_stats(self, request_id: int, _payload: Any) -> Work:
        return lambda: self._reply(request_id, self._loop.stats())

    def _info(self, seconds: float) -> RunnerInfo:
        model, vocab = self._model, self._vocab
        memory, size, vram = memory_by_device()
        return RunnerInfo(
            n_ctx=self._n_ctx,
            n_ctx_train=self._n_ctx_train,
            cells=self._context.cells,
            n_vocab=vocab.size,
            n_embd=model.width,
            pooling=model.pooling,
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
            cache_mode="prefix" if self._cache.sharing else "none",
            can_shift=bool(self._context.memory and lib.llama_memory_can_shift(self._context.memory)),
            has_encoder=bool(lib.llama_model_has_encoder(model.handle)),
            n_params=int(lib.llama_model_n_params(model.handle)),
            system_info=lib.llama_print_system_info().decode(),
            fim=vocab.fim_tokens(),
            load_seconds=seconds,
        )

"""A runner's life: say hello, load what the server asks for, answer its messages until told to stop."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from llm_engine.runner import library, protocol
from llm_engine.runner.aside import Aside
from llm_engine.runner.embed import ONE_VECTOR, Job, pair, rerank_template, truncate
from llm_engine.runner.history import reach
from llm_engine.runner.intake import ContextError, branches, has_media, tokens_of
from llm_engine.runner.machine import Machine
from llm_engine.runner.messages import EmbedRequest, GenerateRequest, LoadSpec, Media, RerankRequest
from llm_engine.runner.model import LoadError
from llm_engine.runner.protocol import encode
from llm_engine.runner.service import Pulse, Reader, Work, Writer, failure, pump, refusal
from llm_engine.runner.vocab import TokenArray

# What takes longer than a turn to prepare: a text and a grammar of more characters than this.
LONG_TEXT = 32768
LONG_GRAMMAR = 8192
# And what lets the samplers see more of the prompt than so many tokens, or makes DRY's walk the vocabulary.
LONG_HISTORY = 8192


def serve(sock: socket.socket) -> None:
    """Never returns: the process ends with the exit code 0 when the server leaves or says stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for the server, which stops us
    writer = Writer(sock)
    writer.send(encode("hello", 0, {"version": protocol.VERSION, "pid": os.getpid()}))
    inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
    reader = Reader(sock, inbox)
    wanted: queue.SimpleQueue[LoadSpec] = queue.SimpleQueue()
    reader.handle("load", lambda _id, payload: wanted.put(protocol.load_spec(payload)))
    reader.handle("stop", lambda _id, _payload: sys.exit)
    reader.start(writer)
    spec = wanted.get()
    library.start(verbose=bool(os.environ.get("LLM_ENGINE_LLAMA_LOG")))

    def on_progress(fraction: float) -> bool:
        writer.send(encode("progress", 0, fraction))
        return True

    try:
        machine = Machine(spec, writer, on_progress)
    except LoadError as error:
        writer.send(encode("load_failed", 0, str(error)))
    else:
        pulse = Pulse()
        Desk(machine, writer, inbox).register(reader)
        reader.handle("ping", lambda _id, _payload: writer.send(encode("pulse", 0, pulse.count)))
        writer.send(encode("ready", 0, machine.info()))
        with suppress(SystemExit):
            pump(inbox, lambda: machine.busy, machine.turn, pulse)
    writer.close()
    # llama.cpp's destructors are not needed for a process that ends, and take their time with a large model.
    sys.stderr.flush()
    os._exit(0)


class Desk:
    """What the server may ask. Handlers run on the reading thread; what they return, on the computing
    thread.
    """

    def __init__(self, machine: Machine, writer: Writer, inbox: queue.SimpleQueue[Work]) -> None:
        self._media, self._texts, self._grammars, self._histories = (
            Aside(name, inbox.put, self._failed) for name in ("media", "texts", "grammars", "histories")
        )
        self._machine = machine
        self._vocab = machine.vocab
        self._writer = writer
        self._parts: dict[int, dict[int, bytearray]] = {}
        """Of requests that are still to come, what has come of their images and sounds."""

    def register(self, reader: Reader) -> None:
        asked = ("generate", "media", "embed", "rerank", "tokenize", "detokenize")
        for kind in (*asked, "stats", "unpark", "cancel"):
            reader.handle(kind, getattr(self, f"on_{kind}"))

    def _reply(self, request_id: int, payload: object) -> None:
        self._writer.send(encode("reply", request_id, payload))

    def _refuse(self, request_id: int, kind: str, text: str) -> None:
        self._writer.send(failure(request_id, kind, text))

    def _failed(self, request_id: int, error: Exception) -> None:
        self._writer.send(refusal(request_id, error))

    def on_generate(self, request_id: int, payload: Any) -> Work | None:
        request: GenerateRequest = protocol.build(GenerateRequest, payload)
        if parts := self._parts.pop(request_id, None):
            pieces: list[Any] = list(request.prompt)
            for at, data in parts.items():
                pieces[at] = Media(bytes(data))
            request = replace(request, prompt=pieces)
        if self._machine.loop is None:
            self._refuse(request_id, "unsupported", "this model only makes embeddings")
            return None
        beside = self._media if has_media(request) else self._slow(request)
        if beside is None:
            return self._prepare(request_id, request)
        beside.put(request_id, lambda: self._prepare(request_id, request))
        return None

    def _slow(self, request: GenerateRequest) -> Aside | None:
        """Where a request without media is prepared that the next ones must not wait for."""
        grammar = request.grammar
        if grammar is not None and len(grammar.gbnf or repr(grammar.json_schema)) > LONG_GRAMMAR:
            return self._grammars
        loop = self._machine.loop
        penalties, dry = reach(request.sampling, loop.n_ctx) if loop is not None else (0, 0)
        if dry or penalties > LONG_HISTORY:
            return self._histories
        parts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        texts = [part for part in parts if isinstance(part, str)]
        return self._texts if sum(map(len, texts)) > LONG_TEXT else None

    def _prepare(self, request_id: int, request: GenerateRequest) -> Work | None:
        machine, loop = self._machine, self._machine.loop
        assert loop is not None
        try:
            made = branches(self._vocab, machine.projector, loop.n_ctx, request_id, request)
        except ContextError as error:
            self._refuse(request_id, "context", str(error))
            return None

        def submit() -> None:
            if not loop.queue.full:
                # At once, not at the end of a turn: the client's answer begins with it.
                self._writer.send(encode("turn", 0, [(request_id, protocol.ACCEPTED)]))
            loop.submit(made)

        return submit

    def on_embed(self, request_id: int, payload: Any) -> Work | None:
        request = EmbedRequest(**payload)
        if request.pooling is not None and request.pooling not in ONE_VECTOR:
            raise ValueError(f"pooling {request.pooling!r} is not one of {', '.join(ONE_VECTOR)}")
        if request.dimensions is not None and request.dimensions < 1:
            raise ValueError(f"dimensions must be at least 1, not {request.dimensions}")
        if sum(len(text) for text in request.inputs) > LONG_TEXT:
            self._texts.put(request_id, lambda: self._embed(request_id, request))
            return None
        return self._embed(request_id, request)

    def _embed(self, request_id: int, request: EmbedRequest) -> Work | None:
        inputs = []
        for text in request.inputs:
            whole = tokens_of(self._vocab, text, add_special=request.add_special)
            tokens = self._fit(whole, request.truncate, request.longest)
            if tokens is None:
                self._refuse(request_id, "context", "the input length exceeds the context length")
                return None
            inputs.append(tokens)
        job = Job(request_id, inputs, request.normalize, request.dimensions)
        return lambda: self._machine.embed(job, request.pooling)

    def _fit(self, tokens: TokenArray, cut: bool, limit: int | None) -> TokenArray | None:
        if len(tokens) == 0:
            if self._vocab.bos < 0:
                raise ValueError("an input is empty")
            return np.array([self._vocab.bos], dtype=np.int32)
        longest = self._machine.longest_input
        if limit is not None:
            longest = min(longest, max(limit, 4))  # the least a context has
        if len(tokens) > longest and not cut:
            return None
        return truncate(tokens, longest, keep_last=self._vocab.add_eos or self._vocab.add_sep)

    def on_rerank(self, request_id: int, payload: Any) -> Work | None:
        request = RerankRequest(**payload)
        if self._machine.model.pooling != "rank":
            self._refuse(request_id, "unsupported", "this model is not a reranker: its pooling is not rank")
            return None
        if (len(request.query) + 1) * len(request.documents) + sum(map(len, request.documents)) > LONG_TEXT:
            self._texts.put(request_id, lambda: self._rank(request_id, request))
            return None
        return self._rank(request_id, request)

    def _rank(self, request_id: int, request: RerankRequest) -> Work:
        template = rerank_template(self._machine.model)
        inputs = [self._pair(template, request.query, document) for document in request.documents]
        job = Job(request_id, inputs, rank=True)
        return lambda: self._machine.embed(job, "rank")

    def _pair(self, template: str | None, query: str, document: str) -> TokenArray:
        vocab = self._vocab
        if template is not None:
            text = template.replace("{query}", query).replace("{document}", document)
            tokens = vocab.tokenize(text, add_special=False)
        else:
            asked, read = (
                vocab.tokenize(text, add_special=False, parse_special=False) for text in (query, document)
            )
            tokens = pair(vocab.handle, asked, read)
        return truncate(tokens, self._machine.longest_input, keep_last=True)

    def on_tokenize(self, request_id: int, payload: Any) -> None:
        options = {key: bool(payload[key]) for key in ("add_special", "parse_special")}
        text = payload["text"]

        def answer() -> None:
            self._reply(request_id, self._vocab.tokenize(text, **options).astype("<i4").tobytes())

        if len(text) > LONG_TEXT:  # takes seconds at worst, and the next request must not wait for it
            self._texts.put(request_id, answer)
        else:
            answer()

    def on_detokenize(self, request_id: int, payload: Any) -> None:
        ids = tokens_of(self._vocab, payload, add_special=False)
        self._reply(request_id, self._vocab.detokenize(ids))

    def on_stats(self, request_id: int, _payload: Any) -> Work:
        return lambda: self._reply(request_id, self._machine.stats())

    def on_unpark(self, request_id: int, payload: Any) -> Work:
        return lambda: self._reply(request_id, self._machine.unpark(int(payload)))

    def on_media(self, request_id: int, payload: Any) -> None:
        """A piece of an image or a sound of a request that follows."""
        place, data = payload
        self._parts.setdefault(request_id, {}).setdefault(place, bytearray()).extend(data)

    def on_cancel(self, request_id: int, _payload: Any) -> Work:
        self._parts.pop(request_id, None)
        for aside in (self._media, self._texts, self._grammars, self._histories):
            aside.cancel(request_id)
        return lambda: self._machine.cancel(request_id)

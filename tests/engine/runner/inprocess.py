"""A whole machine in the test's own process: turns are taken by hand, and what it says is at hand at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llm_engine.runner import library, protocol, service
from llm_engine.runner.batch import Batch
from llm_engine.runner.intake import branches
from llm_engine.runner.library import lib
from llm_engine.runner.loop import Loop
from llm_engine.runner.machine import Machine
from llm_engine.runner.messages import (
    Done,
    Failed,
    GenerateRequest,
    LoadSpec,
    SamplingParams,
    TokenLogprob,
    Tokens,
)

EXACT = {"kv_type": "f32", "flash_attn": "off"}


class Writer:
    """Takes what the machine says, as the socket would."""

    behind = False

    def __init__(self) -> None:
        self.replies: dict[int, Any] = {}
        self.text: dict[int, str] = {}
        self.said: dict[tuple[int, int], list[int]] = {}
        """The ids of each answer's tokens, by request and answer, where they are asked for."""
        self.logprobs: dict[int, list[TokenLogprob]] = {}
        self.ends: dict[int, Done | Failed] = {}

    def send(self, frame: bytes) -> None:
        kind, request_id, payload = protocol.decode(frame[protocol.HEADER.size :])
        if kind == "reply":
            self.replies[request_id] = payload
            return
        for item in payload:
            event = protocol.event(item)
            if isinstance(event, Tokens):
                self.text[item[0]] = self.text.get(item[0], "") + event.text
                self.said.setdefault((item[0], event.index), []).extend(event.ids)
                self.logprobs.setdefault(item[0], []).extend(event.logprobs)
            elif isinstance(event, (Done, Failed)):
                self.ends[item[0]] = event


class InProcess:
    def __init__(self, model: Path, *, to: service.Writer | None = None, **settings: Any) -> None:
        """`to`: a real writer, where what is said is to leave by a socket."""
        library.start()
        self.writer = Writer()
        spec: dict[str, Any] = {"num_ctx": 256, "num_parallel": 4, "threads": 1, **EXACT, **settings}
        self.machine = Machine(LoadSpec(str(model), **spec), to or self.writer, lambda _: True)  # type: ignore[arg-type]

    @property
    def loop(self) -> Loop:
        assert self.machine.loop is not None
        return self.machine.loop

    def submit(self, number: int, request: GenerateRequest) -> None:
        self.loop.submit(
            branches(self.machine.vocab, self.machine.projector, self.loop.n_ctx, number, request)
        )

    def run(self, most: int = 1000) -> None:
        """Turns until nothing is left to do."""
        for _ in range(most):
            if not self.loop.busy:
                return
            self.machine.turn()
        raise AssertionError("the loop goes round for ever")

    def say(self, prompts: Sequence[str], count: int) -> list[str | Failed]:
        """The greedy answers to prompts that run side by side, which leave nothing behind."""
        self.writer.text, self.writer.ends = {}, {}
        sampling = SamplingParams(temperature=0, ignore_eos=True)
        for number, prompt in enumerate(prompts):
            self.submit(number, GenerateRequest(prompt, max_tokens=count, sampling=sampling, cache=False))
        self.run()
        stats = self.loop.stats()
        assert (stats.cells_active, stats.cells_cached, stats.running) == (0, 0, 0)
        ends = [self.writer.ends[number] for number in range(len(prompts))]
        return [
            end if isinstance(end, Failed) else self.writer.text[number] for number, end in enumerate(ends)
        ]


def leaks(bench: InProcess) -> list[str]:
    """What is not free of an idle machine that was told to forget everything, in its own books and in
    llama.cpp's. The cells hold nothing of use afterwards.
    """
    loop, cache = bench.loop, bench.loop.cache
    context = loop._context
    assert not loop.busy
    cache.evict(2 * cache.cells)
    found = []
    if cache.used or cache.active_cells or cache.tree.tails:
        found.append(f"{cache.used} cells and the sequences {sorted(cache.tree.tails)} are in the books")
    usable = set(range(context.sequences)) - {cache._scratch}
    if sorted(cache._free) != sorted(usable):
        found.append(f"of {len(usable)} sequences {sorted(cache._free)} are free")
    for sequence in range(context.sequences):
        if (last := lib.llama_memory_seq_pos_max(context.memory, sequence)) != -1:
            found.append(f"sequence {sequence} holds cells up to position {last}")
    # One sequence takes them all, and there is not one more.
    batch = Batch(context.batch)
    sizes = [context.batch] * (cache.cells // context.batch)
    filled = 0
    for size in (*sizes, cache.cells % context.batch, 1):
        if size:
            batch.clear()
            batch.put(0, filled, np.full(size, 5, dtype=np.int32), outputs=0)
            verdict = batch.decode(context.handle)
            if verdict != (filled == cache.cells):
                found.append(f"{filled} of {cache.cells} cells can be filled, then llama.cpp says {verdict}")
                break
            filled += size
    lib.llama_memory_clear(context.memory, False)
    return found

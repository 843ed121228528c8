"""A grammar while one answer is written: which tokens it lets pass, and when it wakes.

llama.cpp ends the whole process when a grammar is fed text that it forbids, so nothing is fed here that was
not allowed first. A grammar with a trigger therefore sleeps on this side, and not in llama.cpp's lazy
sampler: there the token that wakes the grammar may carry forbidden text behind the trigger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from llm_engine.runner.library import lib
from llm_engine.runner.trigger import Trigger
from llm_engine.runner.vocab import Vocab

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
Handle = Any

# One token's look at the whole vocabulary, at most, and how it is cut.
LONGEST_SECONDS = 2.0
FIRST_SLICE = 64
QUICK_SECONDS = 0.02


class GrammarError(Exception):
    """The grammar cannot go on."""


class Constraint:
    """One branch's grammar. `close` frees it."""

    def __init__(self, vocab: Vocab, make: Callable[[], Handle], trigger: Trigger | None = None) -> None:
        self._vocab = vocab
        self._make = make
        self._trigger = trigger
        self._woken: tuple[int, Handle] | None = None
        self._handle: Handle = None if trigger is not None else make()

    @property
    def asleep(self) -> bool:
        return self._handle is None

    def allows(self, token: int) -> bool:
        """Whether `token` may come next; one that wakes the grammar must also satisfy it."""
        if self._handle is not None:
            return _allowed(self._handle, token)
        fed = self._on_waking(token)
        if fed is None:
            return True
        handle = self._make()
        for part in fed:
            if not _allowed(handle, part):
                lib.llama_sampler_free(handle)
                return False
            lib.llama_sampler_accept(handle, part)
        self._forget()
        self._woken = (token, handle)
        return True

    def strike(self, candidates: Any) -> None:
        """Set the logits of what the grammar forbids to minus infinity; it must be awake.

        Slice by slice, each twice as long as the last while that is quick: the others' answers wait
        meanwhile, and a grammar of ten thousand alternatives would take minutes.
        """
        until = time.monotonic() + LONGEST_SECONDS
        at, size = 0, FIRST_SLICE
        while at < len(candidates):
            started = time.monotonic()
            _apply(self._handle, candidates[at : at + size])
            at, now = at + size, time.monotonic()
            if now > until and at < len(candidates):
                raise GrammarError("the grammar has too many alternatives: one token took too long")
            if now - started < QUICK_SECONDS:
                size *= 2

    def accept(self, token: int) -> None:
        """The sequence was continued with `token`, which `allows` let pass."""
        if self._handle is not None:
            lib.llama_sampler_accept(self._handle, token)
        elif self._woken is not None and self._woken[0] == token:
            self._handle, self._woken = self._woken[1], None
        elif self._trigger is not None:
            self._trigger.push(token, self._vocab.piece(token, special=True))

    def _on_waking(self, token: int) -> list[int] | None:
        """What the grammar is to be fed if `token` wakes it; None: it goes on sleeping."""
        if self._trigger is None:
            return None
        found = self._trigger.woken_by(token, self._vocab.piece(token, special=True))
        # A token that begins before the grammar's text is replaced by smaller ones.
        return None if found is None else [*_spelled(self._vocab, found[0]), *found[1]]

    def _forget(self) -> None:
        if self._woken is not None:
            lib.llama_sampler_free(self._woken[1])
            self._woken = None

    def close(self) -> None:
        self._forget()
        if self._handle is not None:
            lib.llama_sampler_free(self._handle)
            self._handle = None


def _apply(handle: Handle, candidates: Any) -> None:
    data = candidates.ctypes.data_as(lib.llama_token_data_p)
    lib.llama_sampler_apply(handle, lib.llama_token_data_array(data, len(candidates), -1, False))


def _allowed(handle: Handle, token: int) -> bool:
    one = np.zeros(1, dtype=CANDIDATE)
    one["id"] = token
    one["logit"] = 1.0
    _apply(handle, one)
    return bool(np.isfinite(one["logit"][0]))


def _spelled(vocab: Vocab, text: bytes) -> list[int]:
    """Tokens whose pieces are exactly `text`: as the tokeniser cuts it, or byte by byte."""
    tokens: list[int] = vocab.tokenize(text, add_special=False).tolist() if text else []
    if b"".join(vocab.piece(token, special=True) for token in tokens) == text:
        return tokens
    single = {vocab.piece(token, special=True): token for token in range(vocab.size)}
    # A vocabulary without a token for each byte: the end token is what no grammar allows in the middle.
    return [single.get(bytes([byte]), vocab.eos) for byte in text]

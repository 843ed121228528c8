"""What the samplers remember of the text: penalties and DRY, made once per request and copied per answer.

To make DRY's means a walk through the vocabulary for each breaker, and to show a long prompt to either one
call per token: both are done once, however many answers are asked for. Guarantees: what is remembered never
reaches further back than the context does, whatever a request says, so its memory is bounded.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llm_engine.runner.library import lib
from llm_engine.runner.messages import SamplingParams
from llm_engine.runner.vocab import TokenArray, Vocab

MOST_BREAKERS = 64
_LARGEST = 2**31 - 1


class History:
    """`copies` are samplers that have seen the prompt. `close` frees what it keeps; so does its end."""

    def __init__(self, vocab: Vocab, params: SamplingParams, n_ctx: int) -> None:
        self._handles: list[Any] = []
        penalties, dry = reach(params, n_ctx)
        self.length = max(penalties, dry)
        """How many past tokens the samplers look at."""
        if penalties:
            self._handles.append(
                lib.llama_sampler_init_penalties(
                    vocab.size,
                    penalties,
                    params.repeat_penalty,
                    params.frequency_penalty,
                    params.presence_penalty,
                )
            )
        if dry:
            self._handles.append(_dry(vocab, params, dry))

    def read(self, prompt: TokenArray) -> None:
        """Let them see the end of the prompt."""
        accept = lib.llama_sampler_accept
        for token in prompt[-self.length :].tolist() if self.length else ():
            for handle in self._handles if token >= 0 else ():
                accept(handle, token)

    def copies(self) -> list[Any]:
        """Samplers in the order in which a chain wants them; whoever asks frees them."""
        return [lib.llama_sampler_clone(handle) for handle in self._handles]

    def close(self) -> None:
        for handle in self._handles:
            lib.llama_sampler_free(handle)
        self._handles = []

    def __del__(self) -> None:
        self.close()


def reach(params: SamplingParams, n_ctx: int) -> tuple[int, int]:
    """How many tokens back the penalties look, and DRY; 0 where they change nothing."""
    penalises = params.repeat_penalty != 1.0 or params.presence_penalty != 0 or params.frequency_penalty != 0
    return (
        _within(params.repeat_last_n, n_ctx) if penalises else 0,
        _within(params.dry_penalty_last_n, n_ctx) if params.dry_multiplier > 0 else 0,
    )


def _within(last_n: int, n_ctx: int) -> int:
    return n_ctx if last_n < 0 else min(last_n, n_ctx)


def _dry(vocab: Vocab, params: SamplingParams, last_n: int) -> Any:
    breakers = [text.encode() for text in params.dry_sequence_breakers]
    array = (ctypes.c_char_p * len(breakers))(*breakers)
    return lib.llama_sampler_init_dry(
        vocab.handle,
        params.dry_multiplier,
        params.dry_base,
        max(0, min(params.dry_allowed_length, _LARGEST)),
        last_n,
        array,
        len(breakers),
    )

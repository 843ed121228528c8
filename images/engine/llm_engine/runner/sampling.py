"""Choosing the next token: llama.cpp's sampler chain, in llama.cpp's order, as one request asked for it.

The chain owns its random generator and its memory of past tokens, so what a request samples depends on its
own logits and seed alone. A grammar costs little because it is consulted last: a token is sampled freely and
only checked; the whole vocabulary is put through the grammar only when that token was refused.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.constraint import CANDIDATE, Constraint, GrammarError
from llm_engine.runner.history import History
from llm_engine.runner.library import lib
from llm_engine.runner.messages import SamplingParams
from llm_engine.runner.vocab import TokenArray, Vocab

Logits = NDArray[np.float32]
_NEVER = float("-inf")
# More candidates than this are no gain over taking all.
MOST_NARROWED = 4096
# So many tokens are tried where each would wake a grammar and break it.
MOST_REFUSED = 64


class Sampler:
    """One sequence's sampler. `close` frees it, and so does its end; using it afterwards is an error."""

    def __init__(
        self,
        vocab: Vocab,
        params: SamplingParams,
        history: History,
        seed: int,
        grammar: Callable[[], Constraint] | None = None,
    ) -> None:
        self._handle: Any = None
        self._grammar: Constraint | None = None
        self._vocab = vocab
        self.params = params
        self._grammar = grammar() if grammar is not None else None
        bias = {int(token): float(value) for token, value in params.logit_bias.items()}
        if params.ignore_eos:
            bias.update(dict.fromkeys(vocab.end_tokens, _NEVER))
        greedy = params.temperature <= 0
        self._remembers = history.length > 0
        self.plain_greedy = greedy and not bias and not self._remembers
        """Nothing but the largest logit matters, as far as no grammar refuses it."""
        self._candidates: NDArray[Any] | None = None
        alone = not bias and not self._remembers and not params.mirostat and params.top_n_sigma <= 0
        self._narrow = params.top_k if alone and not greedy and 0 < params.top_k <= MOST_NARROWED // 4 else 0
        """Where top-k comes first, its k, as then the rest of the vocabulary need not be looked at."""
        self._threshold = _NEVER
        if not self.plain_greedy or self._grammar is not None:
            self._handle = _chain(vocab, params, bias, history, seed)

    def accept(self, token: int) -> None:
        """The sequence was continued with `token`."""
        if self._grammar is not None:
            self._grammar.accept(token)
        if self._remembers:
            lib.llama_sampler_accept(self._handle, token)

    @property
    def open(self) -> bool:
        """Whether llama.cpp still holds anything for it."""
        return self._handle is not None or self._grammar is not None

    def sample(self, logits: Logits) -> int:
        """The next token; not yet accepted, so a caller may drop it."""
        token = int(logits.argmax()) if self.plain_greedy else self._freely(logits)
        if self._grammar is None or self._grammar.allows(token):
            return token
        if self._grammar.asleep:
            return self._instead(logits, token, self._grammar)
        candidates, array = self._fill(logits)
        self._grammar.strike(candidates)
        if not bool(np.isfinite(candidates["logit"]).any()):
            raise GrammarError("the grammar allows no token here")
        lib.llama_sampler_apply(self._handle, ctypes.byref(array))
        token = int(candidates_of(array, candidates)["id"][array.selected])
        if not self._grammar.allows(token):
            raise GrammarError("the grammar allows no token here")
        return token

    def _freely(self, logits: Logits) -> int:
        candidates, array = self._narrowed(logits) if self._narrow else self._fill(logits)
        lib.llama_sampler_apply(self._handle, ctypes.byref(array))
        return int(candidates_of(array, candidates)["id"][array.selected])

    def _instead(self, logits: Logits, token: int, grammar: Constraint) -> int:
        """Another token than one that would wake the grammar and break it at once."""
        left = logits.copy()
        for _ in range(MOST_REFUSED):
            left[token] = _NEVER
            candidates, array = self._fill(left)
            lib.llama_sampler_apply(self._handle, ctypes.byref(array))
            token = int(candidates_of(array, candidates)["id"][array.selected])
            if np.isfinite(left[token]) and grammar.allows(token):
                return token
        raise GrammarError("the grammar allows no token after its trigger")

    def _narrowed(self, logits: Logits) -> tuple[NDArray[Any], Any]:
        """Only candidates that can be among the k best: those above a threshold that follows the logits.

        Exactly the k best are among them, as there are at least k; where there are fewer, all are taken.
        """
        k = self._narrow
        ids = np.flatnonzero(logits >= self._threshold)
        if not k <= len(ids) <= MOST_NARROWED:
            whole = np.partition(logits, len(logits) - k) if k < len(logits) else logits
            self._aim(float(whole[-k:].min()), float(logits.max()))
            return self._fill(logits)
        values = logits[ids]
        self._aim(float(np.partition(values, len(values) - k)[len(values) - k]), float(values.max()))
        candidates = np.empty(len(ids), dtype=CANDIDATE)
        candidates["id"] = ids
        candidates["logit"] = values
        array = lib.llama_token_data_array(
            candidates.ctypes.data_as(lib.llama_token_data_p), len(ids), -1, False
        )
        return candidates, array

    def _aim(self, kth: float, highest: float) -> None:
        """Put the next threshold a little below the k-th best of now."""
        self._threshold = kth - 0.3 * (highest - kth)

    def _fill(self, logits: Logits) -> tuple[NDArray[Any], Any]:
        candidates = self._candidates
        if candidates is None:
            candidates = self._candidates = np.empty(self._vocab.size, dtype=CANDIDATE)
        candidates["id"] = _ids(self._vocab.size)
        candidates["logit"] = logits
        array = lib.llama_token_data_array(
            candidates.ctypes.data_as(lib.llama_token_data_p), len(candidates), -1, False
        )
        return candidates, array

    def close(self) -> None:
        if self._handle is not None:
            lib.llama_sampler_free(self._handle)
            self._handle = None
        if self._grammar is not None:
            self._grammar.close()
            self._grammar = None

    def __del__(self) -> None:
        self.close()


_id_cache: dict[int, TokenArray] = {}


def _ids(size: int) -> TokenArray:
    if size not in _id_cache:
        _id_cache[size] = np.arange(size, dtype=np.int32)
    return _id_cache[size]


def candidates_of(array: Any, candidates: NDArray[Any]) -> NDArray[Any]:
    """The candidates after sampling: samplers may have moved them to memory of their own."""
    address = ctypes.addressof(array.data.contents)
    if address == candidates.ctypes.data:
        return candidates
    raw = (ctypes.c_char * (array.size * CANDIDATE.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype=CANDIDATE)


def new_seed() -> int:
    return secrets.randbelow(0xFFFFFFFF)


def _chain(vocab: Vocab, params: SamplingParams, bias: dict[int, float], history: History, seed: int) -> Any:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())

    def add(sampler: Any) -> None:
        lib.llama_sampler_chain_add(chain, sampler)

    if bias:
        entries = (lib.llama_logit_bias * len(bias))(
            *[lib.llama_logit_bias(token, value) for token, value in bias.items()]
        )
        add(lib.llama_sampler_init_logit_bias(vocab.size, len(bias), entries))
    for sampler in history.copies():
        add(sampler)
    if params.temperature <= 0:
        add(lib.llama_sampler_init_greedy())
        return chain
    if params.mirostat:
        add(lib.llama_sampler_init_temp(params.temperature))
        if params.mirostat == 1:
            add(
                lib.llama_sampler_init_mirostat(
                    vocab.size, seed, params.mirostat_tau, params.mirostat_eta, 100
                )
            )
        else:
            add(lib.llama_sampler_init_mirostat_v2(seed, params.mirostat_tau, params.mirostat_eta))
        return chain
    if params.top_n_sigma > 0:
        add(lib.llama_sampler_init_top_n_sigma(params.top_n_sigma))
    if params.top_k > 0:
        add(lib.llama_sampler_init_top_k(min(params.top_k, vocab.size)))
    if params.typical_p < 1.0:
        add(lib.llama_sampler_init_typical(params.typical_p, 1))
    if params.top_p < 1.0:
        add(lib.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        add(lib.llama_sampler_init_min_p(params.min_p, 1))
    if params.xtc_probability > 0:
        add(lib.llama_sampler_init_xtc(params.xtc_probability, params.xtc_threshold, 1, seed))
    add(lib.llama_sampler_init_temp(params.temperature))
    add(lib.llama_sampler_init_dist(seed))
    return chain


def log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted).sum())
    return result


def best(values: Logits, count: int) -> list[int]:
    """The indices of the `count` largest values, largest first; ties by lower index."""
    count = min(count, len(values))
    if count <= 0:
        return []
    top = np.argpartition(-values, count - 1)[:count]
    order = np.lexsort((top, -values[top]))
    return [int(i) for i in top[order]]

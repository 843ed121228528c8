"""From a request as it was sent to branches ready to run; done on the reading thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm_engine.runner.branch import Branch
from llm_engine.runner.grammar import constraint_factory
from llm_engine.runner.history import MOST_BREAKERS, History
from llm_engine.runner.media import Chunk, MediaError, Projector
from llm_engine.runner.messages import GenerateRequest, Media, SamplingParams
from llm_engine.runner.sampling import Sampler, new_seed
from llm_engine.runner.text import TextStream
from llm_engine.runner.vocab import TokenArray, Vocab

MOST_BRANCHES = 128
# Each is looked for after every token, while the others' answers wait.
MOST_STOPS, LONGEST_STOP = 256, 1024


def tokens_of(vocab: Vocab, prompt: str | Sequence[Any], *, add_special: bool) -> TokenArray:
    """Token ids of a text (special tokens parsed) or of ids that are checked against the vocabulary."""
    if isinstance(prompt, str):
        return vocab.tokenize(prompt, add_special=add_special)
    ids = np.asarray(prompt, dtype=np.int64)
    if ids.ndim != 1:
        raise ValueError("a prompt of token ids must be a flat list")
    vocab.check(ids)
    return ids.astype(np.int32)


def has_media(request: GenerateRequest) -> bool:
    return not isinstance(request.prompt, str) and any(isinstance(part, Media) for part in request.prompt)


def read_prompt(
    vocab: Vocab, projector: Projector | None, request: GenerateRequest
) -> tuple[TokenArray, list[Chunk]]:
    """The prompt's tokens, and the images and sounds among them."""
    prompt = request.prompt
    if has_media(request):
        if projector is None:
            raise MediaError("this model takes text only")
        parts = [part for part in prompt if isinstance(part, str | Media)]
        tokens, chunks = projector.read(parts, add_special=request.add_special)
        if chunks and chunks[-1].end == len(tokens):
            raise MediaError("a prompt must not end with an image or a sound")
        return tokens, chunks
    return text_tokens(vocab, request), []


def text_tokens(vocab: Vocab, request: GenerateRequest) -> TokenArray:
    prompt = request.prompt
    if not isinstance(prompt, str) and any(isinstance(part, str) for part in prompt):
        prompt = "".join(str(part) for part in prompt)
    tokens = tokens_of(vocab, prompt, add_special=request.add_special)
    if len(tokens) == 0:
        if vocab.bos < 0:
            raise ValueError("the prompt is empty")
        tokens = np.array([vocab.bos], dtype=np.int32)
    return tokens


def check(request: GenerateRequest) -> None:
    """Refuse what would make a sampler misbehave, with the value in the text."""
    if not 1 <= request.n <= MOST_BRANCHES:
        raise ValueError(f"n must be between 1 and {MOST_BRANCHES}, not {request.n}")
    if request.logprobs is not None and request.logprobs < 0:
        raise ValueError(f"logprobs must not be negative, not {request.logprobs}")
    if len(request.stop) > MOST_STOPS:
        raise ValueError(f"stop has {len(request.stop)} strings; the limit is {MOST_STOPS}")
    longest = max(map(len, request.stop), default=0)
    if longest > LONGEST_STOP:
        raise ValueError(f"a stop string has {longest} characters; the limit is {LONGEST_STOP}")
    check_sampling(request.sampling)


def check_sampling(params: SamplingParams) -> None:
    for name, value in vars(params).items():
        if isinstance(value, float) and value != value:
            raise ValueError(f"{name} must be a number")
    if params.repeat_penalty <= 0:
        raise ValueError(f"repeat_penalty must be above 0, not {params.repeat_penalty}")
    if params.mirostat not in (0, 1, 2):
        raise ValueError(f"mirostat must be 0, 1 or 2, not {params.mirostat}")
    if params.dry_multiplier > 0 and params.dry_base < 1:
        raise ValueError(f"dry_base must be at least 1, not {params.dry_base}")
    breakers = len(params.dry_sequence_breakers)
    if breakers > MOST_BREAKERS:
        raise ValueError(f"dry_sequence_breakers has {breakers} strings; the limit is {MOST_BREAKERS}")
    for token, bias in params.logit_bias.items():
        if bias != bias:
            raise ValueError(f"logit_bias of token {token} must be a number")


def branches(
    vocab: Vocab,
    projector: Projector | None,
    n_ctx: int,
    request_id: int,
    request: GenerateRequest,
) -> list[Branch]:
    """One branch per answer asked for. The k-th uses seed + k, so answers differ and the whole is
    repeatable.
    """
    check(request)
    tokens, media = read_prompt(vocab, projector, request)
    if len(tokens) >= n_ctx:
        raise ContextError(f"the prompt has {len(tokens)} tokens and the context holds {n_ctx}")
    seed = new_seed() if request.sampling.seed is None else request.sampling.seed
    grammar = constraint_factory(vocab, request.grammar) if request.grammar is not None else None
    bias = {
        token: value for token, value in request.sampling.logit_bias.items() if 0 <= int(token) < vocab.size
    }
    if len(bias) != len(request.sampling.logit_bias):
        raise ValueError(f"logit_bias names a token that is not in the vocabulary of {vocab.size}")
    now = time.monotonic()
    history = History(vocab, request.sampling, n_ctx)
    history.read(tokens)
    made = []
    for index in range(request.n):
        own = (seed + index) & 0xFFFFFFFF
        branch = Branch(
            request_id=request_id,
            index=index,
            request=request,
            prompt=tokens,
            seed=own,
            arrived=now,
            deadline=now + request.deadline if request.deadline is not None else None,
            text=TextStream(request.stop),
            media=media,
            uneven=bool(media) and projector is not None and projector.many_positions,
        )
        branch.begin()
        branch.sampler = Sampler(vocab, request.sampling, history, own, grammar)
        made.append(branch)
    history.close()
    return made


class ContextError(ValueError):
    """The prompt does not fit."""

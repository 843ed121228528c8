"""One continuation being generated: its tokens, its sampler, its text, and where it stands.

A request for `n` answers is `n` branches; they share the prompt through the prefix cache like any other two
requests.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llm_engine.runner.media import Chunk
from llm_engine.runner.messages import GenerateRequest, Usage
from llm_engine.runner.sampling import Sampler
from llm_engine.runner.text import TextStream
from llm_engine.runner.told import Told
from llm_engine.runner.vocab import TokenArray


class State(enum.Enum):
    WAITING = "waiting"
    READING = "reading"
    WRITING = "writing"
    OVER = "over"


@dataclass(eq=False)
class Branch:
    """`tokens[:filled]` are in the cache; `tokens[computed:count]` still have to be computed."""

    request_id: int
    index: int
    request: GenerateRequest
    prompt: TokenArray
    seed: int
    arrived: float
    deadline: float | None
    state: State = State.WAITING
    sequence: int = -1
    computed: int = 0
    """How many tokens are in the cache."""
    count: int = 0
    shared_upto: int = 0
    """How far the prefix tree knows this sequence; -1 once a shift made it unlike any prompt."""
    tokens: TokenArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    sampler: Sampler | None = None
    text: TextStream = field(default_factory=TextStream)
    told: Told = field(default_factory=Told)
    cached: int = 0
    generated: int = 0
    counted: int = 0
    """How many of the generated ones the server has been told of."""
    drafted: int = 0
    accepted: int = 0
    proposal: list[int] = field(default_factory=list)
    row: int = -1
    """Where this turn's logits of the branch begin, or -1."""
    reach: int = 0
    """How many tokens could be read now: those before the next medium."""
    fed: int = 0
    """How many tokens of this branch are in this turn's batch, or in the air (see `apart`)."""
    admitted: float = 0.0
    first_token: float = 0.0
    apart: int = -1
    """From which token on it is being read in a context of its own, or -1; see `apart`."""
    follows: Branch | None = None
    """Another branch is computing a prefix this one shares: wait until it has `follow_upto` tokens."""
    follow_upto: int = 0
    stops: list[int] = field(default_factory=list)
    """Where the reading halts for a copy of the state; see `checkpoints`."""
    told_prompt: int = 0
    """Of how many of the prompt's tokens the client knows how likely they were."""
    begun_again: bool = False
    """Whether a failed batch has spoilt its state once."""
    position_told: int = -1
    place: int = 0
    """Who waits with a smaller one comes first; see `waiting`."""
    spoken: bool = False
    """Whether any text has left for the client."""
    media: Sequence[Chunk] = ()
    """Parts of the prompt that are embeddings; their tokens are negative."""
    uneven: bool = False
    """Whether positions and tokens differ (M-RoPE): then nothing of this branch can be shared or shifted."""

    def begin(self) -> None:
        """Room for the prompt and some tokens; grows by doubling."""
        self.tokens = np.empty(len(self.prompt) + 256, dtype=np.int32)
        self.tokens[: len(self.prompt)] = self.prompt
        self.count = len(self.prompt)

    def close(self) -> None:
        """It is over: give back what llama.cpp holds for it."""
        self.state = State.OVER
        if self.sampler is not None:
            self.sampler.close()

    def append(self, token: int) -> None:
        if self.count == len(self.tokens):
            self.tokens = np.concatenate((self.tokens, np.empty(len(self.tokens), dtype=np.int32)))
        self.tokens[self.count] = token
        self.count += 1

    def position(self, token: int) -> int:
        """The position at which a token lies."""
        return token + sum(chunk.positions - chunk.tokens for chunk in self.media if chunk.end <= token)

    def next_chunk(self) -> Chunk | None:
        """The first medium that is not wholly in the cache yet."""
        return next((chunk for chunk in self.media if chunk.end > self.computed), None)

    @property
    def tells_prompt(self) -> bool:
        """Whether the client still waits to be told of the prompt's tokens, so each must be computed."""
        wanted = self.request.prompt_logprobs is not None and self.index == 0
        return wanted and self.told_prompt < len(self.prompt)

    def snap(self, length: int) -> int:
        """The longest usable part of a cached prefix: a medium is taken whole or not at all."""
        if self.uneven:
            return 0
        inside = (chunk.start for chunk in self.media if chunk.start < length < chunk.end)
        return min(inside, default=length)

    def keep(self, bos: int, most: int) -> int:
        """How many tokens at the beginning stay when the context is full: as asked, or the whole prompt
        where that is negative; what marks the beginning of a text comes on top.
        """
        asked = self.request.keep
        wanted = len(self.prompt) if asked < 0 else asked + bool(len(self.prompt) and self.prompt[0] == bos)
        return min(wanted, most)

    @property
    def gives(self) -> bool:
        """Whether others can take over what it reads."""
        return self.request.cache and not self.uneven

    @property
    def pending(self) -> int:
        return self.count - self.computed

    def following(self) -> bool:
        """Whether to go on waiting for the branch that computes a shared prefix."""
        leader = self.follows
        if leader is None:
            return False
        if leader.state is State.READING and leader.computed < self.follow_upto:
            return True
        self.follows = None
        return False

    def usage(self) -> Usage:
        now = time.monotonic()
        admitted = self.admitted or now
        first = self.first_token or now
        return Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            completion_tokens=self.generated,
            queue_seconds=admitted - self.arrived,
            prompt_seconds=first - admitted,
            generate_seconds=now - first,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )

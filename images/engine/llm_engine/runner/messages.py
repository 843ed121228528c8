"""Everything that is said between the server and a runner, as frozen dataclasses.

The server builds these, `protocol` carries them, the runner acts on them. Nothing here imports llama.cpp, so
the server can use it without loading a native library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
NUMA = {"distribute": 1, "isolate": 2, "numactl": 3, "mirror": 4}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter file and how strongly it is applied."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True)
class LoadSpec:
    """How to load a model. Two loads with equal specs are interchangeable."""

    model_path: str
    splits: Sequence[str] = ()
    """The files that follow `model_path`, of weights that come in several."""
    adapters: Sequence[Adapter] = ()
    mmproj: str | None = None
    draft: str | None = None
    num_ctx: int = 4096
    """The longest a single sequence may become, in tokens."""
    num_parallel: int = 1
    """How many sequences generate at once; more wait in the queue."""
    cells: int | None = None
    """Tokens the cache holds for all sequences together; None is num_ctx x num_parallel."""
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int = 0
    tensor_split: Sequence[float] = ()
    split_mode: str = "layer"
    threads: int | None = None
    kv_type: str = "f16"
    flash_attn: str = "auto"
    mmap: bool | None = None
    """Whether to map the file instead of reading it; None: unless it is small and a processor computes."""
    mlock: bool = False
    numa: str | None = None
    embedding: bool = False
    """Load for embeddings or reranking alone; a model with a pooling kind of its own implies it."""
    max_queue: int = 512
    gap_ms: float = 400.0
    """While prompts are read, running streams wait about this long between tokens, at most."""
    prefix_cache: bool = True
    park_bytes: int | None = None
    """Main memory for prefixes that nobody uses now; None: a quarter of what is free, at most 8 GiB."""
    idle_cells: int | None = None
    """How many cells idle prefixes may keep; None: few on a processor, all where a GPU computes."""
    lookup: int = 8
    """How many tokens prompt-lookup speculation may propose at a time; 0 turns it off."""
    draft_max: int = 8
    """How many tokens a draft model proposes at a time."""


@dataclass(frozen=True)
class RunnerInfo:
    """What a loaded model turned out to be."""

    n_ctx: int
    n_ctx_train: int
    cells: int
    n_vocab: int
    n_embd: int
    pooling: str
    generates: bool
    """False: this model only embeds or reranks."""
    architecture: str
    description: str
    bos: int
    eos: int
    eot: int
    bos_text: str
    eos_text: str
    eot_text: str
    add_bos: bool
    add_eos: bool
    chat_template: str | None
    size: int
    size_vram: int
    memory: Mapping[str, int]
    cache_mode: str
    """`prefix` (any prefix of any earlier request), `checkpoint` (whole earlier prompts) or `none`."""
    vision: bool = False
    audio: bool = False
    can_shift: bool = True
    has_encoder: bool = False
    n_params: int = 0
    system_info: str = ""
    fim: Mapping[str, int] = field(default_factory=dict)
    load_seconds: float = 0.0
    mapped: bool = True
    """Whether the weights are mapped from their file; where the load left that open, the runner decided."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. A value that changes nothing turns its sampler off."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    top_n_sigma: float = -1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True)
class Grammar:
    """Text that may be generated: a GBNF grammar or a JSON schema, always or from a trigger on."""

    gbnf: str | None = None
    json_schema: Any = None
    """A schema; `{}` means any JSON object."""
    root: str = "root"
    trigger_patterns: Sequence[str] = ()
    """Where given, the grammar sleeps until the generated text matches one; it is then fed from the first
    group on. See `trigger` for what a match may be.
    """
    trigger_tokens: Sequence[int] = ()
    thinking: Sequence[str] = ()
    """The texts around the model's thinking, in which a grammar that sleeps is not woken."""
    in_thought: bool = False
    """Whether the prompt has opened the thinking already."""

    @property
    def lazy(self) -> bool:
        return bool(self.trigger_patterns or self.trigger_tokens)


@dataclass(frozen=True)
class Media:
    """An image or a sound inside a prompt, as the bytes of its file."""

    data: bytes


@dataclass(frozen=True)
class GenerateRequest:
    """One prompt, and how it is to be continued."""

    prompt: str | Sequence[int] | Sequence[str | Media]
    """Text (special tokens are parsed), token ids, or pieces of text with media between them."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = -1
    """-1: until the model stops or the context is full."""
    stop: Sequence[str] = ()
    n: int = 1
    grammar: Grammar | None = None
    logprobs: int | None = None
    """None: none; k: the chosen token's log-probability and the k best beside it."""
    prompt_logprobs: int | None = None
    """The same of the prompt's own tokens, which are then all computed: none is taken from the cache."""
    shift: bool = True
    """When the context is full: forget the oldest half and go on, or stop."""
    keep: int = 4
    """Tokens at the beginning that a shift never forgets, beside the one that begins every text; -1: the
    whole prompt. At most seven eighths of the context.
    """
    add_special: bool = True
    deadline: float | None = None
    """Seconds from now after which the request ends with what it has."""
    cache: bool = True
    special: bool = False
    """Whether control tokens appear in the text (tool-call and thinking markers of some models are
    control tokens).
    """
    echo_tokens: bool = False
    """Whether `Tokens` events carry the ids of their tokens."""


@dataclass(frozen=True)
class EmbedRequest:
    """Inputs to embed, each text or token ids; computed together in as few batches as fit."""

    inputs: Sequence[str | Sequence[int]]
    normalize: bool = True
    dimensions: int | None = None
    truncate: bool = True
    pooling: str | None = None
    add_special: bool = True
    longest: int | None = None
    """Tokens an input may have, where that is less than the model can read."""


@dataclass(frozen=True)
class EmbedResult:
    """One vector per input, in order, as little-endian float32 bytes (see `protocol.vectors`)."""

    vectors: Sequence[bytes]
    tokens: Sequence[int]
    """How many tokens of each input were used."""


@dataclass(frozen=True)
class RerankRequest:
    query: str
    documents: Sequence[str]


@dataclass(frozen=True)
class RerankResult:
    scores: Sequence[float]
    tokens: Sequence[int]


@dataclass(frozen=True)
class TokenLogprob:
    id: int
    text: bytes
    logprob: float
    top: Sequence[tuple[int, bytes, float]] = ()


@dataclass(frozen=True)
class Usage:
    """What a request cost."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    generate_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Accepted:
    """The request can be served as asked: only the model itself can fail it from now on."""


@dataclass(frozen=True)
class Queued:
    position: int


@dataclass(frozen=True)
class Started:
    """The reading of the prompt begins, and so much of it was known."""

    index: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class PromptRead:
    """The next tokens of the prompt and how likely they were; the first of all has no value (0)."""

    logprobs: Sequence[TokenLogprob]


@dataclass(frozen=True)
class Tokens:
    index: int
    text: str
    ids: Sequence[int] = ()
    logprobs: Sequence[TokenLogprob] = ()
    count: int = 0
    """How many tokens were generated since the last event of this answer."""


@dataclass(frozen=True)
class Done:
    index: int
    reason: str
    """`stop` (end token), `stop_string`, `length`, `deadline` or `cancelled`."""
    usage: Usage
    stop_string: str | None = None


@dataclass(frozen=True)
class Failed:
    kind: str
    """`invalid` (the request cannot be served as asked), `context` (it does not fit), `busy` (the queue is
    full), `unsupported` (this model cannot), `crashed` (the runner died) or `internal`.
    """
    text: str


Event = Accepted | Queued | Started | PromptRead | Tokens | Done | Failed


@dataclass(frozen=True)
class Stats:
    """What the runner is doing now, and what it has done."""

    running: int = 0
    prefilling: int = 0
    queued: int = 0
    cells: int = 0
    cells_active: int = 0
    cells_cached: int = 0
    sequences: int = 0
    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    evictions: int = 0
    parked_tokens: int = 0
    parked_bytes: int = 0
    restored_tokens: int = 0
    preemptions: int = 0
    cancelled: int = 0
    decode_failures: int = 0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0

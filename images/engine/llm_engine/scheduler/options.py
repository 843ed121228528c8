"""Ollama's `options`: one table of names and types, and what each one sets.

Merged in Ollama's order: defaults, then the model's own parameters, then the request. A wrong type is the
client's mistake and is refused with Ollama's sentence (as 400, where Ollama says 500); an unknown name is
ignored with a log line, and names that newer engines no longer know are accepted silently.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_engine.models.parameters import CHOICES, LEAST
from llm_engine.runner.messages import SamplingParams

log = logging.getLogger("llm_engine.options")


class InvalidOption(ValueError):
    """An option of the wrong type or outside its range; the text is for the client."""


@dataclass(frozen=True)
class RunnerOptions:
    """What decides how a model is loaded. None: not asked for, so anything that is loaded will do."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    draft_num_predict: int | None = None
    adapter_scale: tuple[float, ...] | None = None
    """How strong each adapter is, in their order; 1 where nothing is said."""


@dataclass(frozen=True)
class Options:
    """All options of one request, merged and checked."""

    runner: RunnerOptions
    sampling: SamplingParams
    num_predict: int | None = None
    """None: no limit was set; 0: no token at all."""
    num_keep: int = 4
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    deadline: float | None = None
    """After so many seconds an answer ends with what it has."""
    cache_prompt: bool = True
    """Whether others may go on from what this request leaves in the prefix cache."""
    pooling: str | None = None
    """How an embedding is made of its tokens; None: as the model says."""


INTEGER, FLOAT, BOOLEAN, STRING, STRINGS, BIAS = "integer", "float32", "boolean", "string", "array", "object"
FLOATS = "array of float32"

_RUNNER = {
    "num_ctx": INTEGER,
    "num_batch": INTEGER,
    "num_gpu": INTEGER,
    "main_gpu": INTEGER,
    "num_thread": INTEGER,
    "use_mmap": BOOLEAN,
    "use_mlock": BOOLEAN,
    "draft_num_predict": INTEGER,
    "adapter_scale": FLOATS,
}
_SAMPLING = {
    "seed": INTEGER,
    "temperature": FLOAT,
    "top_k": INTEGER,
    "top_p": FLOAT,
    "min_p": FLOAT,
    "typical_p": FLOAT,
    "repeat_last_n": INTEGER,
    "repeat_penalty": FLOAT,
    "presence_penalty": FLOAT,
    "frequency_penalty": FLOAT,
    "mirostat": INTEGER,
    "mirostat_tau": FLOAT,
    "mirostat_eta": FLOAT,
    "dry_multiplier": FLOAT,
    "dry_base": FLOAT,
    "dry_allowed_length": INTEGER,
    "dry_penalty_last_n": INTEGER,
    "dry_sequence_breakers": STRINGS,
    "xtc_probability": FLOAT,
    "xtc_threshold": FLOAT,
    "top_n_sigma": FLOAT,
    "ignore_eos": BOOLEAN,
    "logit_bias": BIAS,
}
_OTHER = {
    "num_predict": INTEGER,
    "num_keep": INTEGER,
    "stop": STRINGS,
    "grammar": STRING,
    "pooling": STRING,
    "deadline": FLOAT,
    "cache_prompt": BOOLEAN,
}
TYPES = {**_RUNNER, **_SAMPLING, **_OTHER}
OBSOLETE = frozenset({"penalize_newline", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "tfs_z"})


def parse(*layers: Mapping[str, Any] | None) -> Options:
    """Merge the layers, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in (layer or {}).items():
            if value is None:
                continue
            kind = TYPES.get(name)
            if kind is None:
                if name not in OBSOLETE:
                    log.warning("invalid option provided", extra={"data": {"option": name}})
                continue
            merged[name] = check(name, kind, value)
    runner = RunnerOptions(**{name: merged[name] for name in _RUNNER if name in merged})
    sampling = {name: merged[name] for name in _SAMPLING if name in merged}
    if (seed := sampling.get("seed")) is not None:
        # Negative means random; llama.cpp's seed has 32 bits, and its highest value also means random.
        sampling["seed"] = None if seed < 0 else seed % 0xFFFFFFFF
    return Options(
        runner=runner,
        sampling=SamplingParams(**sampling),
        num_predict=merged.get("num_predict"),
        num_keep=merged.get("num_keep", 4),
        stop=tuple(merged.get("stop", ())),
        grammar=merged.get("grammar") or None,
        deadline=merged.get("deadline"),
        cache_prompt=merged.get("cache_prompt", True),
        pooling=merged.get("pooling") or None,
    )


def with_stops(parsed: Options, more: Sequence[str]) -> Options:
    """The same options with further stop texts, each once."""
    return replace(parsed, stop=tuple(dict.fromkeys((*parsed.stop, *more))))


def check(name: str, kind: str, value: Any) -> Any:
    """The value as its type, or InvalidOption."""
    if kind == INTEGER:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**63:
            raise InvalidOption(f'option "{name}" must be of type integer')
        if name in LEAST and int(value) < LEAST[name]:
            raise InvalidOption(f'option "{name}" must be at least {LEAST[name]}, not {int(value)}')
        return int(value)
    if kind == FLOAT:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 3.4e38:
            raise InvalidOption(f'option "{name}" must be of type float32')
        if name in LEAST and value < LEAST[name]:
            raise InvalidOption(f'option "{name}" must be at least {LEAST[name]}, not {value}')
        return float(value)
    if kind == BOOLEAN:
        if not isinstance(value, bool):
            raise InvalidOption(f'option "{name}" must be of type boolean')
        return value
    if kind == STRING:
        if not isinstance(value, str):
            raise InvalidOption(f'option "{name}" must be of type string')
        if value and value not in CHOICES.get(name, (value,)):
            raise InvalidOption(f'option "{name}" must be one of {", ".join(CHOICES[name])}, not {value!r}')
        return value
    if kind == BIAS:
        return _bias(name, value)
    if kind == FLOATS:
        return tuple(check(name, FLOAT, item) for item in (value if isinstance(value, list) else [value]))
    return _strings(name, value)


def _strings(name: str, value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise InvalidOption(f'option "{name}" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise InvalidOption(f'option "{name}" must be of an array of strings')
    return tuple(item for item in value if item)


def _bias(name: str, value: Any) -> Mapping[int, float]:
    if not isinstance(value, dict):
        raise InvalidOption(f'option "{name}" must be of type object')
    bias: dict[int, float] = {}
    for token, weight in value.items():
        try:
            number = int(token)
        except ValueError:
            number = -1
        if number < 0 or number >= 2**31:
            raise InvalidOption(f'option "{name}": "{token}" is not a token id')
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) < 3.4e38:
            raise InvalidOption(f'option "{name}": the bias of token {token} must be a number')
        bias[number] = float(weight)
    return bias

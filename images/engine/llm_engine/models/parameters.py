"""The names and types of model parameters, checked when a model is made instead of when it is first asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_INTEGERS = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict", "num_keep",
    "num_predict", "seed", "top_k", "repeat_last_n", "mirostat", "dry_allowed_length", "dry_penalty_last_n",
)  # fmt: skip
_FLOATS = (
    "temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
    "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base", "xtc_probability", "xtc_threshold",
    "top_n_sigma", "deadline",
)  # fmt: skip
_BOOLEANS = ("use_mmap", "use_mlock", "ignore_eos", "cache_prompt")
_TEXTS = ("grammar", "pooling")
_LISTS = ("stop", "dry_sequence_breakers")
_NUMBERS = ("adapter_scale",)
# Old Modelfiles carry these and nothing acts on them any more: dropped with a warning, as Ollama does.
DEPRECATED = frozenset(
    ("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "numa", "tfs_z"),
)
KINDS: Mapping[str, str] = {
    **dict.fromkeys(_INTEGERS, "int"),
    **dict.fromkeys(_FLOATS, "float"),
    **dict.fromkeys(_BOOLEANS, "bool"),
    **dict.fromkeys(_TEXTS, "string"),
    **dict.fromkeys(_LISTS, "list"),
    **dict.fromkeys(_NUMBERS, "floats"),
}
# Below these a request is refused as well: a model that sets one could never answer.
LEAST = {"num_ctx": 1, "num_batch": 1, "num_thread": 0, "draft_num_predict": 0, "main_gpu": 0, "deadline": 0}
CHOICES = {"pooling": ("mean", "cls", "last")}
_SHOWN = {
    "int": "integer",
    "float": "float32",
    "bool": "boolean",
    "list": "array of strings",
    "floats": "array of numbers",
}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class InvalidParameter(ValueError):
    """A parameter that does not exist, or a value of the wrong type or outside its range."""


def from_text(name: str, text: str) -> Any:
    """The value of a PARAMETER line."""
    kind = _kind(name)
    try:
        if kind == "int":
            # A whole number may be written as 4096.0; Go's parser refuses that, people's files hold it.
            value = float(text)
            if value != int(value) or abs(value) >= 2**63:
                raise ValueError
            return _in_range(name, int(text) if text.strip().lstrip("+-").isdigit() else int(value))
        if kind in ("float", "floats"):
            number = float(text)
            if not abs(number) < 3.4e38:
                raise ValueError
            return _in_range(name, number)
    except InvalidParameter:
        raise
    except (ValueError, OverflowError):
        raise InvalidParameter(f"invalid {kind.rstrip('s')} value [{text}]") from None
    if kind == "bool":
        if text not in (*_TRUE, *_FALSE):
            raise InvalidParameter(f"invalid bool value [{text}]")
        return text in _TRUE
    return _in_range(name, text)


def is_list(name: str) -> bool:
    """Whether its lines collect."""
    return KINDS.get(name) in ("list", "floats")


def check(name: str, value: Any) -> Any:
    """The value of a JSON parameter, or InvalidParameter."""
    kind = _kind(name)
    number = _is_number(value)
    if kind == "floats":
        if number and abs(value) < 3.4e38:
            return [float(value)]
        if isinstance(value, list) and all(_is_number(item) and abs(item) < 3.4e38 for item in value):
            return [float(item) for item in value]
    if kind == "list":
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    elif kind == "int" and number and abs(value) < 2**63 and value == int(value):
        return _in_range(name, int(value))
    elif (
        (kind == "float" and number and abs(value) < 3.4e38)
        or (kind == "bool" and isinstance(value, bool))
        or (kind == "string" and isinstance(value, str))
    ):
        return _in_range(name, value)
    raise InvalidParameter(f'parameter "{name}" must be of type {_SHOWN.get(kind, kind)}')


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(name: str, value: Any) -> Any:
    """The value, where a request with it would be answered."""
    why = ""
    if name in CHOICES:
        if value not in CHOICES[name]:
            why = f"one of {', '.join(CHOICES[name])}"
    elif value < LEAST.get(name, value):
        why = f"at least {LEAST[name]}"
    elif name == "repeat_penalty" and value <= 0:
        why = "above 0"
    elif name == "mirostat" and value not in (0, 1, 2):
        why = "0, 1 or 2"
    if why:
        raise InvalidParameter(f'parameter "{name}" must be {why}, not {value}')
    return value


def check_all(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All of them; deprecated ones are left out."""
    return {name: check(name, value) for name, value in parameters.items() if name not in DEPRECATED}


def _kind(name: str) -> str:
    kind = KINDS.get(name)
    if kind is None:
        close = nearest(name, KINDS)
        raise InvalidParameter(
            f"unknown parameter '{name}'" + (f" (did you mean '{close}'?)" if close else "")
        )
    return kind


def nearest(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return found[0] if found else None

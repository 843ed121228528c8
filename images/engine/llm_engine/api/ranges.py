"""The ranges of OpenAI's and Anthropic's own sampling fields, and what is said of a value outside them.

Their clients are tested against services that refuse such a value. Ollama's `options` have no ranges but
those without which a sampler would misbehave: what reaches the model by that way is not looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_engine.api.errors import bad_request

Ranges = Mapping[str, tuple[float, float]]
OPENAI: Ranges = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
MOST_BIAS = 100
ANTHROPIC: Ranges = {"temperature": (0, 1), "top_p": (0, 1)}


def check_openai(given: Mapping[str, Any]) -> None:
    """In OpenAI's words, which programs look for."""
    for name, (least, most) in OPENAI.items():
        value = given.get(name)
        if value is not None and value < least:
            raise bad_request(_openai(name, "below minimum", f">= {least}", value), param=name)
        if value is not None and value > most:
            raise bad_request(_openai(name, "above maximum", f"<= {most}", value), param=name)
    for token, bias in (given.get("logit_bias") or {}).items():
        if not -MOST_BIAS <= bias <= MOST_BIAS:
            raise bad_request(
                f"Invalid 'logit_bias': the bias of token {token} must be between "
                f"-{MOST_BIAS} and {MOST_BIAS}, not {bias:g}",
                param="logit_bias",
            )


def _openai(name: str, where: str, expected: str, value: float) -> str:
    return f"Invalid '{name}': decimal {where} value. Expected a value {expected}, but got {value:g} instead."


def check_anthropic(given: Mapping[str, Any]) -> None:
    for name, (least, most) in ANTHROPIC.items():
        value = given.get(name)
        if value is not None and not least <= value <= most:
            raise bad_request(f"{name}: range: {least}..{most}, not {value:g}", param=name)
    if (top_k := given.get("top_k")) is not None and top_k < 0:
        raise bad_request(f"top_k: must be 0 or more, not {top_k}", param="top_k")

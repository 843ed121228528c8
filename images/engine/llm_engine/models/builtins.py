"""The names that RENDERER and PARSER know: Ollama's own, so that what it made can be made again here."""

from __future__ import annotations

from llm_engine.models.parameters import nearest

_BOTH = [
    "qwen3-coder",
    "qwen3-vl-instruct",
    "qwen3-vl-thinking",
    "qwen3.5",
    "ornith",
    "cogito",
    "olmo3",
    "olmo3-think",
    "nemotron-3-nano",
    "nemotron-3.5-nano",
    "gemma4",
    "functiongemma",
    "glm-4.7",
    "glm-ocr",
    "lfm2",
    "lfm2-thinking",
    "laguna",
    "poolside-v1",
    "cohere",
    "glimmer",
]
PARSERS = frozenset(
    (
        *_BOTH,
        "qwen3",
        "qwen3-thinking",
        "ministral",
        "passthrough",
        "harmony",
        "deepseek3",
        "gemma4-no-thinking",
    )
)
RENDERERS = frozenset(
    (*_BOTH, "qwen3.8", "deepseek3.1", "olmo3.1", "olmo3-32b-think", "gemma4-small", "gemma4-large")
)
KNOWN = {"renderer": RENDERERS, "parser": PARSERS}


def mistake(kind: str, name: str) -> str:
    """What is wrong with the name of a renderer or parser; empty where it is a known one."""
    if name in KNOWN[kind]:
        return ""
    close = nearest(name, KNOWN[kind])
    return f'unknown {kind} "{name}"' + (f' (did you mean "{close}"?)' if close else "")

"""Models for tests, made and not downloaded: tiny GGUFs that say a known text in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest
from llm_engine.models.scripted import CHATML, build

SENTENCE = "The quick brown fox jumps over the lazy dog."
TOOL_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
ODD_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\ud9f0!", "n": [1]}}\n</tool_call>'
"""Half a surrogate pair: legal JSON, and no text."""
AFTER_TOOL = "It is sunny in Paris today."
THOUGHT = "<think>\nLet me consider it.\n</think>\n\nThe answer is 42."

# The last token says which turn the model answers: one model can call a tool and then use its result.
# use its result.
TOOL_TEMPLATE = (
    "{%- if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{%- for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
    "{%- for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|end|>"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>"
    "{%- if messages[-1].role == 'tool' %}<|after_tool|>{% elif tools %}<|may_call|>{% endif %}{% endif %}"
)


class ModelMaker(Protocol):
    def __call__(self, scripts: Mapping[str | None, str] | str, **options: object) -> Path: ...


@pytest.fixture
def make_gguf(tmp_path: Path) -> ModelMaker:
    """Builds a scripted GGUF: `make_gguf("text")`, or with triggers and the options of `scripted.build`."""
    made = 0

    def make(scripts: Mapping[str | None, str] | str, **options: object) -> Path:
        nonlocal made
        made += 1
        table = {None: scripts} if isinstance(scripts, str) else scripts
        return build(tmp_path / f"scripted-{made}.gguf", table, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def chat_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says SENTENCE; its template is ChatML."""
    path = tmp_path_factory.mktemp("gguf") / "chat.gguf"
    return build(path, {None: SENTENCE}, chat_template=CHATML, control_tokens=("<|im_start|>", "<|im_end|>"))


@pytest.fixture(scope="session")
def tool_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says TOOL_CALL when tools are given, AFTER_TOOL after a tool's result, and SENTENCE otherwise."""
    path = tmp_path_factory.mktemp("gguf") / "tool.gguf"
    scripts = {None: SENTENCE, "<|may_call|>": TOOL_CALL, "<|after_tool|>": AFTER_TOOL}
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
    return build(path, scripts, chat_template=TOOL_TEMPLATE, control_tokens=roles)


@pytest.fixture(scope="session")
def thinking_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thinks aloud, then answers: THOUGHT."""
    path = tmp_path_factory.mktemp("gguf") / "thinking.gguf"
    template = CHATML.replace(
        "message['content']",
        "('<think>' + message['reasoning_content'] + '</think>' if message['reasoning_content'] else '')"
        " + message['content']",
    )
    return build(path, {None: THOUGHT}, chat_template=template, control_tokens=("<|im_start|>", "<|im_end|>"))


@pytest.fixture(scope="session")
def endless_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never ends: for cancellation, time limits and context shift."""
    path = tmp_path_factory.mktemp("gguf") / "endless.gguf"
    return build(path, {None: SENTENCE + " "}, chat_template=CHATML, endless=True)


@pytest.fixture(scope="session")
def embedding_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model: mean pooling, 384 dimensions, 2048 tokens."""
    path = tmp_path_factory.mktemp("gguf") / "embedding.gguf"
    return build(path, {None: ""}, name="embedding", embedding=True, width=384, context_length=2048)

"""What a model can do, found from its header and its templates without loading it."""

from __future__ import annotations

from functools import lru_cache

from llm_engine.models.config import ModelConfig
from llm_engine.models.gguf import GGUFFile
from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.gotemplate.inspect import inspect
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.jinja.traits import probe

# Encoder architectures: their answer is a vector, whatever else their header says.
ENCODERS = frozenset(
    {
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
    }
)


def detect(
    gguf: GGUFFile | None,
    *,
    template: str | None,
    chat_template: str,
    projectors: bool,
    config: ModelConfig,
) -> tuple[str, ...]:
    """In the order that Ollama lists them."""
    found: list[str] = []
    embedding = gguf is not None and is_embedding(gguf)
    found.append("embedding" if embedding else "completion")
    vision = projectors or (gguf is not None and gguf.get(".vision.block_count", 0) > 0)
    audio = gguf is not None and gguf.get(".audio.block_count", 0) > 0
    if vision:
        found.append("vision")
    if audio:
        found.append("audio")
    if not embedding:
        if tools(template, chat_template) or config.parser:
            found.append("tools")
        if insert(template):
            found.append("insert")
        if thinking(template, chat_template, config):
            found.append("thinking")
    found += [item for item in config.capabilities if item not in found]
    return tuple(found)


def is_embedding(gguf: GGUFFile) -> bool:
    return gguf.architecture in ENCODERS or f"{gguf.architecture}.pooling_type" in gguf.metadata


def tools(template: str | None, chat_template: str) -> bool:
    return (template is not None and _go(template)[0]) or _jinja(chat_template)[0]


def thinking(template: str | None, chat_template: str, config: ModelConfig) -> bool:
    if "think" in config.parser or (template is not None and _go(template)[1]):
        return True
    return _jinja(chat_template)[1]


def insert(template: str | None) -> bool:
    return template is not None and _go(template)[2]


@lru_cache(maxsize=256)
def _go(source: str) -> tuple[bool, bool, bool]:
    """Tools, thinking and insert of a Go template; a broken one can do nothing."""
    try:
        traits = inspect(Template(source))
    except TemplateError:
        return False, False, False
    return traits.tools, traits.thinking is not None, traits.suffix


@lru_cache(maxsize=256)
def _jinja(source: str) -> tuple[bool, bool]:
    """Tools and thinking of a Jinja template."""
    if not source:
        return False, False
    try:
        traits = probe(ChatTemplate(source))
    except TemplateError:
        return False, False
    return traits.tools, traits.thinking

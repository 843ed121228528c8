"""What a model can do, found from its header and its templates without loading it."""

from __future__ import annotations

from llm_engine.models.config import ModelConfig
from llm_engine.models.gguf import GGUFFile

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
THINKING_MARKS = ("<think>", "reasoning_content", "enable_thinking", "<|channel|>", "[THINK]")


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
        if template is not None and ".Suffix" in template:
            found.append("insert")
        if thinking(template, chat_template, config):
            found.append("thinking")
    found += [item for item in config.capabilities if item not in found]
    return tuple(found)


def is_embedding(gguf: GGUFFile) -> bool:
    return gguf.architecture in ENCODERS or ".pooling_type" in "".join(
        key for key in gguf.metadata if key.endswith(".pooling_type")
    )


def tools(template: str | None, chat_template: str) -> bool:
    return (template is not None and ".Tools" in template) or "tools" in chat_template


def thinking(template: str | None, chat_template: str, config: ModelConfig) -> bool:
    if template is not None and ".Thinking" in template:
        return True
    return any(mark in chat_template for mark in THINKING_MARKS) or "think" in config.parser

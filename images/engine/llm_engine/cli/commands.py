"""The table of commands: name, where it lives, and its one-line help (kept here so that --help imports
nothing)."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    attribute: str
    help: str
    hidden: bool = False


COMMANDS: dict[str, Entry] = {
    "serve": Entry("llm_engine.cli.serve", "serve", "Serve the Ollama, OpenAI and Anthropic APIs."),
    "start": Entry("llm_engine.cli.serve", "serve", "The same as serve.", hidden=True),
    "keys": Entry("llm_engine.cli.serve", "keys", "Make and remove API keys."),
    "demo-model": Entry(
        "llm_engine.cli.demo",
        "demo_model",
        "Write a tiny model that says one fixed sentence, for a first try.",
    ),
}

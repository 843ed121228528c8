"""The `llm-engine` program."""

from __future__ import annotations

import click

from llm_engine import __version__


@click.group()
@click.version_option(__version__, prog_name="llm-engine")
def main() -> None:
    """A drop-in for Ollama that also speaks the OpenAI and Anthropic APIs."""

"""`llm-engine demo-model`: a model of a few hundred kilobytes, so that a fresh stack can answer before any
download."""

from __future__ import annotations

from pathlib import Path

import click

DEMO_SENTENCE = (
    "Hello! I am the built-in demo model: I say this one sentence whatever you ask. "
    "Pull a real model to get real answers."
)


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--say", default=DEMO_SENTENCE, show_default=False, help="The sentence that the model says.")
def demo_model(out: Path, say: str) -> None:
    """Write a tiny model (GGUF) that answers every chat with one fixed sentence to OUT."""
    from llm_engine.models.scripted import CHATML, build

    build(out, {None: say}, name="demo", chat_template=CHATML, control_tokens=("<|im_start|>", "<|im_end|>"))
    click.echo(out)

"""`llm-engine export` and `import`: models in a tar file, straight from and to the directory of the store."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import IO

import click

from llm_engine.errors import EngineError
from llm_engine.models import human
from llm_engine.models.bundle import export as write
from llm_engine.models.bundle import load
from llm_engine.models.model import Model
from llm_engine.models.store import ModelStore
from llm_engine.settings import from_env


def open_store(models: Path | None) -> ModelStore:
    settings = from_env()
    return ModelStore(models or settings.models, prune=not settings.noprune)


MODELS = click.option(
    "--models", type=click.Path(path_type=Path, file_okay=False), help="Model store (default: OLLAMA_MODELS)."
)


@click.command()
@click.argument("model")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file (default: stdout)."
)
@MODELS
def export(model: str, output: Path | None, models: Path | None) -> None:
    """Write MODEL as a tar, to be carried to a host without a network."""
    if output is None and sys.stdout.isatty():
        raise EngineError("a terminal cannot take a model", fix=f"llm-engine export {model} > model.tar")
    with open_store(models).holding(model) as found:
        if output is None:
            write(found, sys.stdout.buffer)
        else:
            _write_file(found, output)


def _write_file(found: Model, output: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=".export-", dir=output.resolve().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            size = write(found, file)
        os.chmod(name, 0o644)
        os.replace(name, output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    click.echo(f"wrote {found.short_name} ({human.size(size)}) to {output}", err=True)


@click.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@MODELS
def import_(file: IO[bytes], models: Path | None) -> None:
    """Store the models of a tar that `export` wrote; - or nothing is stdin."""
    for model in load(open_store(models), file):
        click.echo(f"imported '{model.short_name}'")

"""Writing a message in the user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import click

from llm_engine.errors import EngineError

VARIABLES = ("OLLAMA_EDITOR", "VISUAL", "EDITOR")


def edited(text: str) -> str:
    """What the user made of `text`; nothing when the editor failed."""
    editor = shlex.split(next(filter(None, map(os.environ.get, VARIABLES)), "vi"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "message.md"  # some editors replace the file: it is opened again afterwards
        path.write_text(text)
        try:
            done = subprocess.run([*editor, str(path)], check=False)
        except OSError as error:
            raise EngineError(
                f"cannot run {editor[0]}: {error.strerror}", fix="export OLLAMA_EDITOR=nano"
            ) from None
        if done.returncode != 0:
            raise EngineError(f"{editor[0]} ended with exit code {done.returncode}; nothing is sent")
        written = path.read_text(errors="replace").strip()
    if written:
        click.echo(f">>> {written}")
    return written

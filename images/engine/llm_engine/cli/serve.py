"""`llm-engine serve` and `llm-engine keys`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from llm_engine.errors import EngineError


@click.command()
@click.option("--host", help="Address to listen on (default: OLLAMA_HOST, else 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on (default: OLLAMA_HOST, else 11434)."
)
@click.option("--models", type=click.Path(path_type=Path), help="Model store (default: OLLAMA_MODELS).")
@click.option("--keys-file", type=click.Path(path_type=Path, dir_okay=False), help="File of API keys.")
@click.option(
    "--tls-cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Certificate (PEM)."
)
@click.option(
    "--tls-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its key (PEM)."
)
def serve(
    host: str | None,
    port: int | None,
    models: Path | None,
    keys_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve the Ollama, OpenAI and Anthropic APIs."""
    # Imported here: the other verbs must not pay for a server.
    from llm_engine.api.server import serve as run
    from llm_engine.settings import from_env

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "models": models,
        "keys_file": keys_file,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(from_env(), **chosen)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    run(settings)


@click.group()
def keys() -> None:
    """API keys for a server that is used without a gateway."""


@keys.command("new")
@click.argument("name")
@click.option("--file", "path", type=click.Path(path_type=Path, dir_okay=False), required=True)
def new_key(name: str, path: Path) -> None:
    """Make a key, add its hash to FILE, and print it once."""
    from llm_engine.api import keys as ring

    try:
        known = ring.read_keys(path) if path.exists() else {}
        if name in known:
            raise EngineError(
                f'key "{name}": it is already in {path}', fix=f"llm-engine keys remove {name} --file {path}"
            )
        key = ring.add(path, name)
    except ring.KeysFileError as error:
        raise EngineError(str(error)) from error
    click.echo(key)


@keys.command("remove")
@click.argument("name")
@click.option("--file", "path", type=click.Path(path_type=Path, dir_okay=False), required=True)
def remove_key(name: str, path: Path) -> None:
    """Take a key out of FILE; a running server notices."""
    from llm_engine.api import keys as ring

    try:
        ring.remove(path, name)
    except ring.KeysFileError as error:
        raise EngineError(str(error)) from error

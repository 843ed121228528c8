"""The short verbs: list, ps, cp, rm, stop, pull, push."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from llm_engine.cli.client import Client, ServerError
from llm_engine.cli.progress import Progress
from llm_engine.cli.table import table
from llm_engine.models import human


def _when(text: str) -> datetime:
    # Go writes up to nine digits of a second; Python reads six.
    head, dot, rest = text.partition(".")
    digits = "".join(c for c in rest[:9] if c.isdigit())
    zone = rest.lstrip("0123456789") or ("Z" if text.endswith("Z") else "")
    return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{zone}" if dot else text)


@click.command("list")
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(prefix: str, as_json: bool) -> None:
    """List the models there are, the newest first; PREFIX narrows the list."""
    models = Client().json("GET", "/api/tags")["models"]
    found = [model for model in models if model["name"].lower().startswith(prefix.lower())]
    if as_json:
        click.echo(json.dumps({"schema": "llm-engine/models/1", "models": found}))
        return
    click.echo(models_table(found))


def models_table(models: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            model["name"],
            model["digest"][:12],
            "-" if model.get("remote_host") else human.size(model["size"]),
            human.moment(_when(model["modified_at"])),
        )
        for model in models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED"), rows)


@click.command()
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def ps(prefix: str, as_json: bool) -> None:
    """List the models that are loaded."""
    found = [model for model in Client().json("GET", "/api/ps")["models"] if model["name"].startswith(prefix)]
    if as_json:
        click.echo(json.dumps({"schema": "llm-engine/ps/1", "models": found}))
        return
    rows = [
        (
            model["name"],
            model["digest"][:12],
            human.size(model["size"]),
            _processor(model["size"], model["size_vram"]),
            str(model.get("context_length") or ""),
            _until(model["expires_at"]),
        )
        for model in found
    ]
    click.echo(table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), rows))


def _processor(size: int, vram: int) -> str:
    if vram == 0:
        return "100% CPU"
    if vram == size:
        return "100% GPU"
    if vram > size or size == 0:
        return "Unknown"
    cpu = round((size - vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def _until(text: str) -> str:
    when = _when(text)
    now = datetime.now(when.tzinfo)
    return "Stopping..." if when < now else human.moment(when, "Never")


@click.command()
@click.argument("source")
@click.argument("destination")
def cp(source: str, destination: str) -> None:
    """Give a model a second name."""
    Client().json("POST", "/api/copy", {"source": source, "destination": destination})
    click.echo(f"copied '{source}' to '{destination}'")


def unload(client: Client, model: str) -> None:
    client.json("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def rm(models: tuple[str, ...]) -> None:
    """Remove models, and unload them first."""
    client = Client()
    loaded = {entry["name"] for entry in client.json("GET", "/api/ps")["models"]}
    for model in models:
        if model in loaded or f"{model}:latest" in loaded:
            with contextlib.suppress(ServerError):  # a broken model can be removed as well
                unload(client, model)
        client.json("DELETE", "/api/delete", {"model": model})
        click.echo(f"deleted '{model}'")


@click.command()
@click.argument("model")
def stop(model: str) -> None:
    """Unload a model."""
    try:
        unload(Client(), model)
    except ServerError as error:
        if error.status == 404:
            raise ServerError(f'couldn\'t find model "{model}" to stop', 404) from None
        raise


@click.command()
@click.argument("model")
@click.option(
    "--insecure", is_flag=True, help="Plain http, or https with a certificate that nobody vouches for."
)
def pull(model: str, insecure: bool) -> None:
    """Fetch a model from a registry. NAME@sha256:... takes exactly that version."""
    pull_model(Client(), model, insecure)


def pull_model(client: Client, model: str, insecure: bool) -> None:
    Progress().follow(client.stream("/api/pull", {"model": model, "insecure": insecure}))


@click.command()
@click.argument("model")
@click.option(
    "--insecure", is_flag=True, help="Plain http, or https with a certificate that nobody vouches for."
)
def push(model: str, insecure: bool) -> None:
    """Send a model to the registry that its name begins with."""
    statuses: Any = Client().stream("/api/push", {"model": model, "insecure": insecure})
    Progress().follow(statuses)

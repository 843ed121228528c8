"""`llm-engine run`: one answer for a prompt, or a conversation at a terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click

from llm_engine import OLLAMA_VERSION
from llm_engine.cli.answers import Printer, print_timings
from llm_engine.cli.client import Client, ServerError
from llm_engine.cli.session import Session
from llm_engine.cli.verbs import pull_model

LEVELS = ("high", "medium", "low", "max")


def think_value(text: str | None) -> bool | str | None:
    if text is None:
        return None
    if text.lower() in ("true", "1", "on", "yes"):
        return True
    if text.lower() in ("false", "0", "off", "no"):
        return False
    if text.lower() in LEVELS:
        return text.lower()
    raise click.UsageError(
        f'invalid value for --think: "{text}" (must be true, false, high, medium, low, or max)'
    )


@click.command()
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--keepalive", metavar="DURATION", help="How long the model stays loaded, such as 5m.")
@click.option("--verbose", is_flag=True, help="Show timings.")
@click.option("--insecure", is_flag=True, help="When the model must be pulled: allow plain http.")
@click.option("--nowordwrap", is_flag=True, help="Do not break lines between words.")
@click.option("--format", "format_", metavar="FORMAT", help="json, or a JSON schema.")
@click.option(
    "--think",
    is_flag=False,
    flag_value="true",
    metavar="[LEVEL]",
    help="Think first: true, false or a level.",
)
@click.option("--hidethinking", is_flag=True, help="Do not show the thoughts.")
@click.option("--truncate/--no-truncate", default=None, help="Embedding models: cut texts that are too long.")
@click.option("--dimensions", type=int, help="Embedding models: the length of the vector.")
def run(model: str, prompt: tuple[str, ...], **flags: Any) -> None:
    """Ask MODEL for an answer to PROMPT; without a prompt, talk with it."""
    client = Client()
    think = think_value(flags.pop("think"))
    try:
        shown = client.json("POST", "/api/show", {"model": model})
    except ServerError as error:
        if error.status != 404:
            raise
        pull_model(client, model, flags["insecure"])
        shown = client.json("POST", "/api/show", {"model": model})
    warn_of_version(model, shown.get("requires", ""))
    text = " ".join(prompt)
    if not sys.stdin.isatty():
        piped = sys.stdin.read()
        text = "\n\n".join(part for part in (piped.strip("\n"), text) if part)
    base: dict[str, Any] = {"model": model}
    if flags["keepalive"]:
        base["keep_alive"] = flags["keepalive"]
    capabilities = shown.get("capabilities", [])
    if "embedding" in capabilities and "completion" not in capabilities:
        _embed(client, base, text, flags)
        return
    if flags["format_"]:
        base["format"] = parse_format(flags["format_"])
    if think is not None:
        base["think"] = think
    if text or not sys.stdout.isatty() or not sys.stdin.isatty():
        _once(client, base, text, flags)
        return
    session = Session(client, base, shown, verbose=flags["verbose"], wordwrap=not flags["nowordwrap"])
    session.hide_thinking = flags["hidethinking"]
    session.run()


def warn_of_version(model: str, requires: str) -> None:
    """Such a model may load or may not: the loader knows. When it does not, the reason has been told."""
    wanted, ours = (
        tuple(map(int, re.findall(r"\d+", text.partition("-")[0]))) for text in (requires, OLLAMA_VERSION)
    )
    if wanted > ours:
        click.echo(
            f"warning: {model} requires Ollama {requires}; this engine follows {OLLAMA_VERSION}", err=True
        )


def parse_format(text: str) -> Any:
    if text == "json":
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise click.UsageError(f"--format must be json or a JSON schema, not {text[:80]!r}") from None


def _once(client: Client, base: dict[str, Any], text: str, flags: dict[str, Any]) -> None:
    printer = Printer(wordwrap=not flags["nowordwrap"], hide_thinking=flags["hidethinking"])
    last: dict[str, Any] = {}
    for piece in client.stream("/api/generate", {**base, "prompt": text}):
        printer.thinking(piece.get("thinking", ""))
        printer.content(piece.get("response", ""))
        last = piece
    printer.end()
    if flags["verbose"]:
        print_timings(last)


def _embed(client: Client, base: dict[str, Any], text: str, flags: dict[str, Any]) -> None:
    if not text:
        raise click.UsageError("embedding models need a prompt")
    body = {**base, "input": text}
    if flags["truncate"] is not None:
        body["truncate"] = flags["truncate"]
    if flags["dimensions"]:
        body["dimensions"] = flags["dimensions"]
    click.echo(json.dumps(client.json("POST", "/api/embed", body)["embeddings"][0]))

"""`stackctl config`: show, validate, explain."""

from __future__ import annotations

from typing import Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.group()
def config() -> None:
    """Show, check and explain the stack file."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from: file and line, or default.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def show(context: click.Context, origin: bool, as_json: bool) -> None:
    """Show the configuration in force: files, overlay, environment and defaults put together.

    \b
    Examples:
      stackctl config show
      stackctl --overlay nightly config show --origin
    """
    import yaml

    loaded = contexts.load(context)
    document = _without_secrets(loaded.config.model_dump(mode="json", by_alias=True))
    if origin:
        lines = list(_leaves(document, ()))
        origins = {path: _origin(loaded, path) for path, _ in lines}
        if as_json:
            values = [
                {"key": _dotted(path), "value": value, "origin": origins[path]} for path, value in lines
            ]
            output.emit_json("stackctl.config.origin/1", {"values": values})
            return
        rows = [(_dotted(path), str(value), origins[path]) for path, value in lines]
        click.echo(output.table(("KEY", "VALUE", "FROM"), rows))
        return
    if as_json:
        output.emit_json(
            "stackctl.config/1", {"files": [str(path) for path in loaded.files], "config": document}
        )
        return
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def validate(context: click.Context, as_json: bool) -> int:
    """Check the stack file; every problem at once, each with file, line, key and value.

    Exit code: 0 valid, 2 not.

    \b
    Examples:
      stackctl config validate
      stackctl --overlay nightly config validate --json
    """
    from stackctl.errors import ConfigError

    try:
        loaded = contexts.load(context)
    except ConfigError as error:
        if not as_json:
            raise
        output.emit_json("stackctl.validate/1", {"valid": False, "problems": error.problems or [error.what]})
        return 2
    if as_json:
        output.emit_json("stackctl.validate/1", {"valid": True, "problems": []})
    else:
        click.echo(f"{', '.join(str(path) for path in loaded.files)}: valid")
    return 0


@config.command()
@click.option(
    "--format",
    "shape",
    type=click.Choice(["sample", "table", "schema"]),
    default="sample",
    show_default=True,
    help="A commented sample, a Markdown table, or a JSON Schema for editors.",
)
def docs(shape: str) -> None:
    """Print every key of stack.yaml with its default and meaning.

    \b
    Examples:
      stackctl config docs
      stackctl config docs --format schema > stack.schema.json
    """
    import json

    from stackctl.config import sample, schema

    texts = {"sample": sample.sample, "table": sample.reference}
    if shape == "schema":
        click.echo(json.dumps(schema.json_schema(), indent=2))
        return
    click.echo(texts[shape](), nl=False)


def _without_secrets(value: Any, key: str = "") -> Any:
    """`***` for a secret that stands in the stack file in clear: to show it would spread it."""
    from stackctl.render.secrecy import form_of_secret, why_secret

    if isinstance(value, dict):
        named = key in ("environment", "headers")
        return {
            name: "***"
            if named and isinstance(item, str) and why_secret(name, item)
            else _without_secrets(item, name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item, key) for item in value]
    return "***" if isinstance(value, str) and form_of_secret(value) else value


def _leaves(value: Any, path: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _origin(loaded: Any, path: tuple[str | int, ...]) -> str:
    if found := loaded.origins.get(path):
        return str(found)
    parent = loaded.origins.get(path[:-1])
    if parent is not None and path and isinstance(path[-1], int):
        return str(parent)
    return "default"


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)

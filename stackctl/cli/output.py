"""How commands talk: the answer to stdout, everything else to stderr, colour only where a person looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click


def emit_json(schema: str, document: dict[str, Any]) -> None:
    """One document; `schema` names its shape and version, such as `stackctl.status/1`."""
    click.echo(json.dumps({"schema": schema, **document}, indent=2, default=str))


def say(text: str) -> None:
    click.echo(text, err=True)


def coloured(stream: Any = None) -> bool:
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: Any = None) -> str:
    return click.style(text, fg=colour) if coloured(stream) else text


def confirm(question: str, *, yes: bool) -> None:
    """Ask at a terminal; without one, refuse rather than guess."""
    if yes:
        return
    if not sys.stdin.isatty():
        from stackctl.errors import UsageError

        raise UsageError(f"{question} Nobody is here to ask", fix="give --yes")
    click.confirm(question, abort=True, err=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the last one is not padded, so nothing is cut."""
    widths = [
        max([len(headers[column]), *(len(click.unstyle(row[column])) for row in rows)])
        for column in range(len(headers))
    ]
    lines = []
    for row in [headers, *rows]:
        cells = [cell + " " * (widths[column] - len(click.unstyle(cell))) for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

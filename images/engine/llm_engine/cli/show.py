"""`llm-engine show`: what a model is, in tables or as one of its texts."""

from __future__ import annotations

import json
from typing import Any

import click

from llm_engine.cli.client import Client
from llm_engine.cli.table import section
from llm_engine.models import human

SHOWN_LINES = 2
SHOWN_ITEMS = 3


@click.command()
@click.argument("model")
@click.option("--license", "parts", flag_value="license", multiple=True, help="The licence.")
@click.option(
    "--modelfile", "parts", flag_value="modelfile", multiple=True, help="A Modelfile that makes it again."
)
@click.option("--parameters", "parts", flag_value="parameters", multiple=True, help="The parameters it sets.")
@click.option(
    "--template", "parts", flag_value="template", multiple=True, help="The template of its prompts."
)
@click.option("--system", "parts", flag_value="system", multiple=True, help="The system message.")
@click.option("-v", "--verbose", is_flag=True, help="All metadata, and the tensors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(model: str, parts: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Show what a model is."""
    if len(set(parts)) > 1:
        raise click.UsageError(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' "
            "can be specified"
        )
    document = Client().json("POST", "/api/show", {"model": model, "verbose": verbose})
    if as_json:
        click.echo(json.dumps({"schema": "llm-engine/show/1", **document}))
    elif parts:
        click.echo(document.get(parts[0], ""))
    else:
        click.echo(overview(document, verbose), nl=False)


def overview(document: dict[str, Any], verbose: bool = False) -> str:
    info: dict[str, Any] = document.get("model_info") or {}
    out = section("Model", _model_rows(document, info))
    out += section("Capabilities", [[item] for item in document.get("capabilities", [])])
    if projector := document.get("projector_info"):
        out += section("Projector", _projector_rows(projector))
    parameters = [line.split(None, 1) for line in document.get("parameters", "").splitlines()]
    out += section("Parameters", parameters)
    if verbose:
        out += section("Metadata", [[key, _short(info[key])] for key in sorted(info)])
        tensors = document.get("tensors", [])
        out += section("Tensors", [[t["name"], t["type"], str(t["shape"])] for t in tensors])
    for title, key in (("System", "system"), ("License", "license")):
        out += section(title, _first_lines(document.get(key, "")))
    return out


def _model_rows(document: dict[str, Any], info: dict[str, Any]) -> list[list[str]]:
    details = document.get("details", {})
    if document.get("remote_host"):
        return [["Remote model", document["remote_model"]], ["Remote URL", document["remote_host"]]]
    architecture = str(info.get("general.architecture", details.get("family", "")))
    count = info.get("general.parameter_count")
    rows = [
        ["architecture", architecture],
        ["parameters", human.number(count) if isinstance(count, int) else details.get("parameter_size", "")],
    ]
    for key in ("context_length", "embedding_length"):
        value = info.get(f"{architecture}.{key}")
        if value is not None:
            rows.append([key.replace("_", " "), str(value)])
    rows.append(["quantization", details.get("quantization_level", "")])
    if document.get("requires"):
        rows.append(["requires", document["requires"]])
    return rows


def _projector_rows(info: dict[str, Any]) -> list[list[str]]:
    architecture = str(info.get("general.architecture", ""))
    rows = [["architecture", architecture]]
    count = info.get("general.parameter_count")
    if isinstance(count, int):
        rows.append(["parameters", human.number(count)])
    for key in ("embedding_length", "projection_dim"):
        value = info.get(f"{architecture}.vision.{key}")
        if value is not None:
            rows.append([key.replace("_", " ").replace("projection dim", "dimensions"), str(value)])
    return rows


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = " ".join(str(item) for item in value[:SHOWN_ITEMS])
        more = f" ...+{len(value) - SHOWN_ITEMS} more" if len(value) > SHOWN_ITEMS else ""
        return f"[{shown}{more}]"
    return str(value)


def _first_lines(text: str) -> list[list[str]]:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return [[line] for line in lines[:SHOWN_LINES]] + ([["..."]] if len(lines) > SHOWN_LINES else [])

"""`llm-engine doctor`: what is wrong in the model store. Needs no server; only --fix changes anything."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from llm_engine.cli.bundle import MODELS, open_store
from llm_engine.errors import EngineError
from llm_engine.models import human
from llm_engine.models.examine import examine, set_aside, tidy


@click.command()
@click.option("--verify", is_flag=True, help="Read every blob and compare it with its digest.")
@click.option(
    "--fix",
    is_flag=True,
    help="First remove files that no model uses, older than an hour; with --verify, "
    "set damaged blobs aside as well, so that a pull fetches them again.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@MODELS
def doctor(verify: bool, fix: bool, as_json: bool, models: Path | None) -> None:
    """Examine the model store; exit status 1 when a model is broken."""
    store = open_store(models)
    if fix and not store.prunes:
        raise EngineError(
            "OLLAMA_NOPRUNE forbids to remove files", fix="OLLAMA_NOPRUNE= llm-engine doctor --fix"
        )
    removed = list(tidy(store)) if fix else []
    aside = list(set_aside(store)) if fix and verify else []
    findings = list(examine(store, verify=verify))
    logging.getLogger("llm_engine.models").setLevel(logging.ERROR)  # the findings say it better
    listed = store.list()
    broken = any(finding.level == "error" for finding in findings)
    if as_json:
        document = {
            "schema": "llm-engine/doctor/1",
            "store": str(store.root),
            "models": [model.short_name for model in listed],
            "removed": removed,
            "set_aside": aside,
            "findings": [finding.to_json() for finding in findings],
        }
        click.echo(json.dumps(document))
    else:
        blobs = {layer.digest: layer.size for model in listed for layer in model.manifest.everything}
        click.echo(f"{store.root}: {len(listed)} models, {human.size(sum(blobs.values()))}")
        for name in removed:
            click.echo(f"removed: {name}")
        for name in aside:
            click.echo(f"set aside: {name}")
        for finding in findings:
            click.echo(f"{finding.level}: {finding.subject}: {finding.text}")
            if finding.fix:
                click.echo(f"fix: {finding.fix}")
        if not findings:
            click.echo("nothing is wrong")
    sys.exit(1 if broken else 0)

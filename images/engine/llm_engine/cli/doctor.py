"""`llm-engine doctor`: what is wrong in the model store. Needs no server and changes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from llm_engine.cli.bundle import MODELS, open_store
from llm_engine.models import human
from llm_engine.models.examine import examine


@click.command()
@click.option("--verify", is_flag=True, help="Read every blob and compare it with its digest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@MODELS
def doctor(verify: bool, as_json: bool, models: Path | None) -> None:
    """Examine the model store; exit status 1 when a model is broken."""
    store = open_store(models)
    findings = list(examine(store, verify=verify))
    listed = store.list()
    broken = any(finding.level == "error" for finding in findings)
    if as_json:
        document = {
            "schema": "llm-engine/doctor/1",
            "store": str(store.root),
            "models": [model.short_name for model in listed],
            "findings": [finding.to_json() for finding in findings],
        }
        click.echo(json.dumps(document))
    else:
        blobs = {layer.digest: layer.size for model in listed for layer in model.manifest.everything}
        click.echo(f"{store.root}: {len(listed)} models, {human.size(sum(blobs.values()))}")
        for finding in findings:
            click.echo(f"{finding.level}: {finding.subject}: {finding.text}")
            if finding.fix:
                click.echo(f"fix: {finding.fix}")
        if not findings:
            click.echo("nothing is wrong")
    sys.exit(1 if broken else 0)

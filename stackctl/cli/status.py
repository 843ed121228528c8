"""`stackctl status`: what runs now, as it is and not as it was written down."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

_COLOURS = {"healthy": "green", "running": "green", "starting": "yellow", "created": "yellow"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show each service: state, health, restarts, image, ports, memory; the loaded models; and drift.

    Drift is what differs between the rendered stack and what runs.

    \b
    Examples:
      stackctl status
      stackctl status --json | jq '.services[].health'
    """
    from stackctl.operations.status import collect

    found = collect(contexts.running_stack(context))
    if as_json:
        output.emit_json("stackctl.status/1", found.document())
        return
    generation = f"generation {found.stack.generation}" if found.stack.generation else "never up, or down"
    click.echo(f"stack {found.stack.stack} on {found.stack.runtime}, {generation}")
    rows = [_row(service) for service in found.stack.services]
    if rows:
        headers = ("SERVICE", "STATE", "HEALTH", "RESTARTS", "UP", "MEMORY", "PORTS", "IMAGE")
        click.echo(output.table(headers, rows))
    for gpu in found.gpus:
        click.echo(f"gpu: {gpu}")
    for model in found.models:
        click.echo(f"loaded: {model}")
    for line in found.stack.drift:
        click.echo(output.paint(f"drift: {line}", "yellow"))
    for line in found.stack.notes:
        click.echo(f"note: {line}")
    if found.lock:
        click.echo(f"locked by {found.lock.get('command')} (pid {found.lock.get('pid')})")


def _row(service: Any) -> tuple[str, ...]:
    from stackctl.config.section import format_size

    ports = ", ".join(f"{port.host_ip}:{port.host_port}" for port in service.ports) or "-"
    up = "-"
    if service.started_at and service.state == "running":
        from stackctl.config.durations import format_duration

        up = format_duration((datetime.now(UTC) - service.started_at).total_seconds() // 1)
    image = service.image_id.removeprefix("sha256:")[:12] or service.image
    memory = format_size(service.memory_bytes) if service.memory_bytes else "-"
    return (
        service.name,
        output.paint(service.state, _COLOURS.get(service.state, "red")),
        output.paint(service.health, _COLOURS.get(service.health, "red")),
        str(service.restarts),
        up,
        memory,
        ports,
        image,
    )

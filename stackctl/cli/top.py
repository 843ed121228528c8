"""`stackctl top`: the stack, live."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command()
@click.option(
    "--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between."
)
@click.option("--once", is_flag=True, help="Two readings, one print; the default without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print as JSON.")
@click.pass_context
def top(context: click.Context, interval: float, once: bool, as_json: bool) -> None:
    """Show live: CPU, memory and restarts of each service, GPU, loaded models, tokens per second, queue.

    \b
    Examples:
      stackctl top
      stackctl top --once --json
    """
    from stackctl.operations import activity

    stack = contexts.running_stack(context)
    before = activity.read(stack)
    if once or as_json or not sys.stdout.isatty():
        time.sleep(min(interval, 1.0))
        now = activity.read(stack)
        if as_json:
            output.emit_json("stackctl.top/1", _document(before, now))
        else:
            click.echo(_text(stack.name, before, now))
        return
    try:
        while True:
            time.sleep(interval)
            now = activity.read(stack)
            click.clear()
            click.echo(_text(stack.name, before, now))
            before = now
    except KeyboardInterrupt:
        return


def _document(before: Any, now: Any) -> dict[str, Any]:
    import dataclasses

    from stackctl.operations import activity

    loads = activity.cpu_load(before, now)
    return {
        "services": [
            {**dataclasses.asdict(service), "cpu": loads.get(service.name)} for service in now.services
        ],
        "models": [dataclasses.asdict(model) for model in now.models],
        "gpus": [dataclasses.asdict(gpu) for gpu in now.gpus],
        "load": now.load,
        **_figures(before, now),
    }


def _figures(before: Any, now: Any) -> dict[str, float | None]:
    from stackctl.operations.activity import gauge, rate

    return {
        "tokens_per_second": rate(before, now, "llm_engine_completion_tokens_total"),
        "prompt_tokens_per_second": rate(before, now, "llm_engine_prompt_tokens_total"),
        "requests_per_second": rate(before, now, "llm_engine_requests_total"),
        "queue": gauge(now, "llm_engine_queue_length"),
    }


def _text(name: str, before: Any, now: Any) -> str:
    from stackctl.config.section import format_size
    from stackctl.operations.activity import cpu_load

    loads = cpu_load(before, now)
    head = f"stack {name}   load {now.load[0]:.2f} {now.load[1]:.2f} {now.load[2]:.2f}"
    rows = [
        (
            service.name,
            service.state,
            service.health,
            str(service.restarts),
            f"{100 * loads[service.name]:.0f}%" if service.name in loads else "-",
            format_size(service.memory_bytes) if service.memory_bytes else "-",
            format_size(service.memory_limit) if service.memory_limit else "-",
        )
        for service in now.services
    ]
    figures = [
        f"{key.replace('_', ' ')}: {value:.1f}"
        for key, value in _figures(before, now).items()
        if value is not None
    ]
    table = output.table(("SERVICE", "STATE", "HEALTH", "RESTARTS", "CPU", "MEMORY", "LIMIT"), rows)
    extra = [*(f"gpu: {gpu}" for gpu in now.gpus), *(f"loaded: {model}" for model in now.models)]
    return "\n".join([head, table, *extra, "   ".join(figures)])

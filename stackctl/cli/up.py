"""`stackctl up`: bring the stack up and prove that it works."""

from __future__ import annotations

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.command()
@click.option(
    "--timeout", type=float, help="Seconds to wait for health (default: each service's start_grace)."
)
@click.option("--wait", "lock_wait", type=float, default=0.0, help="Seconds to wait for another stackctl.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def up(context: click.Context, timeout: float | None, lock_wait: float, as_json: bool) -> None:
    """Bring the stack up, and prove that it works.

    Renders stack.yaml, refuses early what cannot work, starts what differs, waits until every service is
    healthy and stays so, and asks a model for one token through the published port. When that fails, the
    reason is shown and the generation before is brought back. In a folder without stack.yaml one is made
    first.

    \b
    Examples:
      stackctl up
      stackctl up --timeout 300
      stackctl -f lab/stack.yaml --overlay nightly up --json

    Exit code: 0 up; 3 refused before anything was changed; 4 not healthy, and went back; 5 going back failed,
    too; 6 another stackctl works on this stack.
    """
    from stackctl.cli.init import write_stack_file
    from stackctl.config import loader
    from stackctl.operations import firstrun
    from stackctl.operations.up import up as bring_up

    asked_for = context.find_root().obj["stack_file"]
    path = loader.find(asked_for)
    # A first run in an empty folder is helped along; a file that was named and is not there is a mistake.
    if not path.exists() and not asked_for:
        write_stack_file(path)
        output.say(f"no stack file here: wrote {path} with the defaults")
    stack = contexts.stack(context)
    output.say(f"stack {stack.name} on {stack.choice.name}: {stack.choice.reason}")
    result = bring_up(stack, deadline=timeout, wait_for_lock=lock_wait)
    made = firstrun.ensure_model(stack) if "engine" in stack.config.services.enabled() else None
    speaker = made or firstrun.stand_in(stack)
    said = firstrun.first_words(stack, speaker) if speaker else None
    urls = {name: stack.config.url(name) for name in stack.config.services.enabled()}
    if as_json:
        output.emit_json(
            "stackctl.up/1",
            {
                "stack": stack.name,
                "runtime": stack.runtime.name,
                "generation": result.generation,
                "previous": result.previous,
                "changed": result.changed,
                "urls": urls,
                "token_seconds": result.token_seconds,
                "model": made,
                "said": said,
            },
        )
        return
    for name, url in urls.items():
        click.echo(f"{name:10} {url}")
    if said:
        click.echo(f"{speaker} says: {said}")
    elif result.token_seconds is not None:
        click.echo(f"a model answered with one token in {result.token_seconds:.2f} s")
    else:
        click.echo("no model yet: stackctl models pull NAME")

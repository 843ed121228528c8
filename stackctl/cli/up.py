"""`stackctl up`: bring the stack up and prove that it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackctl.cli import context as contexts
from stackctl.cli import output

if TYPE_CHECKING:
    from stackctl.operations.context import Stack
    from stackctl.procedures.engine import RunResult


@click.command()
@click.option(
    "--timeout", type=float, help="Seconds to wait for health (default: each service's start_grace)."
)
@click.option("--wait", "lock_wait", type=float, default=0.0, help="Seconds to wait for another stackctl.")
@click.option("--take-back", is_flag=True, help="First take back an upgrade or rollback that was cut off.")
@click.option("--plan", "plan_only", is_flag=True, help="Ask every check, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def up(
    context: click.Context,
    timeout: float | None,
    lock_wait: float,
    take_back: bool,
    plan_only: bool,
    as_json: bool,
) -> int:
    """Bring the stack up, and prove that it works.

    Renders stack.yaml, refuses early what cannot work, starts what differs, waits until every service is
    healthy and stays so, and asks a model for one token through the published port. When that fails, the
    reason is shown and the generation before is brought back. In a folder without stack.yaml one is made
    first. The steps are those of the procedure bring-up: stackctl procedures show bring-up.

    While an upgrade or a rollback that was cut off waits to be ended, nothing is started: it is not known
    which version the data belongs to. With --take-back, as at boot, the version of before comes back first,
    with its data.

    \b
    Examples:
      stackctl up
      stackctl up --timeout 300
      stackctl -f lab/stack.yaml --overlay nightly up --json

    Exit code: 0 up; 3 refused before anything was changed; 4 not healthy, and went back; 5 going back failed,
    too; 6 another stackctl works on this stack; 130 stopped by Ctrl-C at the end of a step (twice: at once).
    """
    from stackctl.cli.init import write_stack_file
    from stackctl.cli.procedures import person, print_plan
    from stackctl.config import loader
    from stackctl.procedures import locate, use
    from stackctl.procedures.stack_host import StackHost

    asked_for = context.find_root().obj["stack_file"]
    path = loader.find(asked_for)
    # A first run in an empty folder is helped along; a file that was named and is not there is a mistake.
    if not path.exists() and not asked_for and not plan_only:
        write_stack_file(path)
        output.say(f"no stack file here: wrote {path} with the defaults")
    stack = contexts.stack(context)
    if plan_only:
        host = StackHost(stack)
        return print_plan(locate.find("bring-up", host.folder), {}, host, as_json)
    output.say(f"stack {stack.name} on {stack.choice.name}: {stack.choice.reason}")
    if take_back and (code := _taken_back(stack, lock_wait)):
        return code
    before = stack.store.current()
    result = use.bring_up(stack, person(False), within=timeout, lock_wait=lock_wait)
    if result.result != "done":
        return _not_up(result)
    current = stack.store.current()
    # A page of the user's own may have other steps: what they did not leave is not told.
    facts = {name: value for step in result.steps.values() for name, value in step.data.items()}
    urls = stack.config.urls()
    seconds, said = facts.get("token_seconds"), facts.get("said")
    if as_json:
        output.emit_json(
            "stackctl.up/1",
            {
                "stack": stack.name,
                "runtime": stack.runtime.name,
                "generation": current.number if current else None,
                "previous": before.number if before else None,
                "changed": (before and before.number) != (current and current.number),
                "urls": urls,
                "token_seconds": seconds,
                "no_token": facts.get("no_token") if said is None else None,
                "model": facts.get("made"),
                "said": said,
                "run": result.run_id,
            },
        )
        return 0
    for name, url in urls.items():
        click.echo(f"{name:11} {url}")
    if said:
        click.echo(f"{facts['speaker']} says: {said}")
    elif seconds is not None:
        click.echo(f"a model answered with one token in {seconds:.2f} s")
    elif why_not := facts.get("no_token"):
        click.echo(why_not)
    return 0


def _taken_back(stack: Stack, lock_wait: float) -> int:
    """Nobody is there at boot to decide: the version that had proven itself, with its data, is safe."""
    from stackctl.cli.procedures import finish, person
    from stackctl.operations import underway
    from stackctl.procedures import locate, use
    from stackctl.procedures.stack_host import StackHost
    from stackctl.runtime.lock import stack_lock

    with stack_lock(stack.name, wait=lock_wait):
        change = underway.complete(stack)
        if change is None:
            return 0
        output.say(f"{change}: taking it back")
        host = StackHost(stack)
        page = locate.find(change.procedure, host.folder)
        # The undo of a newer page knows the older one's steps: at boot nobody is there to accept it.
        going_on = use.go_on(page, {}, host, use.runs_of(host), person(True), undo=True, accept_changes=True)
        return finish(going_on)


def bring_up_and_tell(stack: Stack) -> int:
    """For a command that ends with a stack that is up."""
    from stackctl.cli.procedures import person
    from stackctl.procedures import use

    result = use.bring_up(stack, person(False))
    return 0 if result.result == "done" else _not_up(result)


def _not_up(result: RunResult) -> int:
    """As an error of this command: its steps matter to whoever reads the journal."""
    from stackctl.cli.procedures import say

    error = result.error
    for line in result.left_by_hand:
        say(f"by hand: {line}")
    if error is None:
        say("interrupted at the end of a step\nfix: stackctl up")
        return result.exit_code
    from stackctl.cli.main import render_error
    from stackctl.errors import StackctlError

    what = error.what if result.left_by_hand else getattr(error, "why", error.what)
    fix = "stackctl status, then stackctl up" if result.left_by_hand else error.fix
    journal = f"stackctl procedures journal {result.run_id}"
    say(render_error(StackctlError(what, fix=fix, more=error.more or journal)))
    return result.exit_code

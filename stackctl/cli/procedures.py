"""`stackctl run` and `stackctl procedures …`: runbooks from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def _stack_folder(ctx: click.Context) -> Path:
    from stackctl.config import loader

    return loader.find(ctx.find_root().obj["stack_file"]).absolute().parent


def _host(ctx: click.Context) -> Any:
    """The stack here, or None where there is no stack file; a broken one is an error."""
    from stackctl.config import loader
    from stackctl.procedures.stack_host import StackHost

    settings = ctx.find_root().obj
    if settings["stack_file"] is None and not loader.find(None).exists():
        return None
    return StackHost.load(settings["stack_file"], settings.get("overlay"), say)


def say(text: str) -> None:
    from stackctl.operations.context import to_stderr

    to_stderr(text)


def _ask(question: str, kind: str) -> str:
    try:
        if kind == "yes-no":
            return "yes" if click.confirm(question, err=True) else "no"
        if kind == "done":
            click.echo(question, err=True)
            click.prompt("press Enter when it is done", default="", show_default=False, err=True)
            return "done"
        return str(click.prompt(question, err=True))
    except click.Abort:
        raise EOFError from None


def person(yes: bool, answers: dict[str, str] | None = None) -> Any:
    from stackctl.procedures.people import Person

    ask: Callable[[str, str], str] | None = _ask if sys.stdin.isatty() else None
    return Person(say=say, ask=ask, assume_yes=yes, answers=answers or {})


def finish(result: Any) -> int:
    """Print how a run ended; returns its exit code."""
    if result.error is not None:
        say(f"error: {result.error.what}")
    for line in result.left_by_hand:
        say(f"by hand: {line}")
    say(f"{_closing(result)} (run {result.run_id})")
    from stackctl.procedures import journal

    name = journal.procedure_of(result.run_dir)
    if result.result in ("stopped", "interrupted"):
        say(f"fix: stackctl run {name} --resume")
    elif result.result == "undo-failed":
        step = result.left_by_hand[0].partition(":")[0]
        say(f"fix: stackctl run {name} --resume (--answer {step}=done says that you have done it)")
    elif result.error is not None:
        say(f"fix: {result.error.fix or f'stackctl procedures journal {result.run_id}'}")
        if result.error.more:
            say(f"more: {result.error.more}")
    return int(result.exit_code)


def _closing(result: Any) -> str:
    back, stays = ", ".join(result.undone), ", ".join(result.stays)
    kept = f"; what {stays} did stays" if stays else ""
    return {
        "done": "done",
        "undone": f"went back: undone: {back}{kept}" if back else f"there was nothing to take back{kept}",
        "undo-failed": f"not everything could be undone: a person is needed; undone: {back or 'nothing'}",
        "failed": f"failed{kept}" if stays else "failed, and nothing had been changed",
        "stopped": "stopped; what was done stays done",
        "interrupted": "interrupted between steps; what was done stays done",
    }[str(result.result)]


@click.command("run")
@click.argument("name", required=False)
@click.option(
    "--attach", is_flag=True, help="Follow what --host has started here: what runs now, or the session NAME."
)
@click.option(
    "--input", "-i", "pairs", multiple=True, metavar="NAME=VALUE", help="An input of the procedure."
)
@click.option("--resume", is_flag=True, help="Go on with the last run that did not end.")
@click.option("--undo", is_flag=True, help="Walk back what the last run that did not end has done.")
@click.option("--accept-changes", is_flag=True, help="Resume though the procedure or the inputs changed.")
@click.option(
    "--plan", "plan_only", is_flag=True, help="Ask every check, change nothing, print what would run."
)
@click.option("--yes", "-y", is_flag=True, help="Confirm what steps ask to be confirmed.")
@click.option("--answer", "answers", multiple=True, metavar="STEP=TEXT", help="The answer of a manual step.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def run(
    ctx: click.Context,
    name: str | None,
    attach: bool,
    pairs: tuple[str, ...],
    resume: bool,
    undo: bool,
    accept_changes: bool,
    plan_only: bool,
    yes: bool,
    answers: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run the procedure NAME: its id, or the path of its page.

    \b
    stackctl run upgrade --plan
    stackctl run model-refresh -i models=qwen3:8b
    stackctl run upgrade --resume
    stackctl --host gpubox run --attach
    """
    if attach:
        from stackctl.cli import hosts

        return hosts.attach_here(name)
    if name is None:
        raise click.UsageError("missing argument 'NAME'", ctx)
    from stackctl.procedures import inputs as given
    from stackctl.procedures import locate, use

    if resume and undo:
        raise click.UsageError("--resume and --undo exclude each other")
    host = _host(ctx)
    procedure = locate.find(name, _stack_folder(ctx))
    if plan_only:
        return print_plan(procedure, given.parse_pairs(pairs), host, as_json)
    who = person(yes, given.parse_pairs(answers))
    if resume or undo:
        result = use.go_on(
            procedure,
            given.parse_pairs(pairs),
            host,
            use.runs_of(host),
            who,
            undo=undo,
            accept_changes=accept_changes,
        )
    else:
        result = use.start(procedure, given.parse_pairs(pairs), host, use.runs_of(host), who)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "schema": 1,
                    "run": result.run_id,
                    "result": result.result,
                    "exit_code": result.exit_code,
                    "error": result.error.what if result.error else None,
                    "left_by_hand": list(result.left_by_hand),
                    "undone": list(result.undone),
                    "stays": list(result.stays),
                    "steps": {
                        name: {"state": step.state, "detail": step.detail}
                        for name, step in result.steps.items()
                    },
                }
            )
        )
    return finish(result)


def print_plan(procedure: Any, pairs: dict[str, Any], host: Any, as_json: bool) -> int:
    from stackctl.procedures import inputs as given
    from stackctl.procedures import use
    from stackctl.procedures.plan import plan

    values = given.resolve(procedure.front, pairs)
    planned = plan(procedure, values, host, use.runs_of(host))
    if as_json:
        steps = [
            {
                "id": p.id,
                "title": p.title,
                "verdict": p.verdict,
                "detail": p.detail,
                "operations": p.operations,
            }
            for p in planned
        ]
        click.echo(json.dumps({"schema": 1, "procedure": procedure.id, "steps": steps}))
        return 0
    for number, step in enumerate(planned, 1):
        click.echo(
            f"{number:>2}. {step.verdict:<10}  {step.title} [{step.id}]"
            + (f": {step.detail}" if step.detail else "")
        )
        if step.verdict == "would run":
            for operation in step.operations:
                click.echo(f"      {operation}")
    return 0


@click.group("procedures")
def procedures() -> None:
    """The runbooks of this stack: read them, check them, see what they did."""


@procedures.command("list")
@click.option("--actions", is_flag=True, help="List the actions that steps may name, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, actions: bool, as_json: bool) -> None:
    """List the procedures, shipped and yours.

    \b
    Examples:
      stackctl procedures list
      stackctl procedures list --actions
    """
    from stackctl.procedures import locate, registry

    if actions:
        rows = [
            (a.name, "reads" if a.reads_only else "destroys" if a.irreversible else "changes", a.summary)
            for a in registry.all_actions().values()
        ]
        if as_json:
            names = ("name", "kind", "summary")
            click.echo(json.dumps({"schema": 1, "actions": [dict(zip(names, r, strict=True)) for r in rows]}))
            return
    else:
        found = locate.find_all(_stack_folder(ctx)).values()
        if as_json:
            listed = [
                {
                    "id": page.id,
                    "title": page.procedure.front.title if page.procedure else None,
                    "origin": page.origin,
                    "path": str(page.path),
                    "valid": page.procedure is not None,
                }
                for page in found
            ]
            click.echo(json.dumps({"schema": 1, "procedures": listed}))
            return
        rows = [
            (
                page.id,
                page.origin,
                page.procedure.front.title if page.procedure else "not valid: stackctl procedures lint",
            )
            for page in found
        ]
    width = max((len(row[0]) for row in rows), default=0)
    for name, kind, text in rows:
        click.echo(f"{name:<{width}}  {kind:<8}  {text}")


@procedures.command("show")
@click.argument("name")
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Print a procedure for reading: why, what is normal, and every step.

    \b
    Examples:
      stackctl procedures show bring-up
    """
    from stackctl.procedures import locate, pages

    click.echo(pages.terminal(locate.find(name, _stack_folder(ctx))))


@procedures.command("docs")
@click.option("--html", is_flag=True, help="HTML pages instead of Markdown.")
@click.option(
    "--output",
    "-o",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("procedure-pages"),
    show_default=True,
)
@click.pass_context
def docs(ctx: click.Context, html: bool, folder: Path) -> None:
    """Build a page of each procedure, with its steps as tables.

    \b
    Examples:
      stackctl procedures docs --html --output site
    """
    from stackctl.procedures import locate, pages

    for path in pages.build(locate.find_all(_stack_folder(ctx)).values(), folder, as_html=html):
        click.echo(path)


@procedures.command("plan")
@click.argument("name")
@click.option(
    "--input", "-i", "pairs", multiple=True, metavar="NAME=VALUE", help="An input of the procedure."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plan_(ctx: click.Context, name: str, pairs: tuple[str, ...], as_json: bool) -> int:
    """Ask every check, change nothing, and print what a run would do.

    \b
    Examples:
      stackctl procedures plan upgrade
    """
    from stackctl.procedures import inputs as given
    from stackctl.procedures import locate

    procedure = locate.find(name, _stack_folder(ctx))
    return print_plan(procedure, given.parse_pairs(pairs), _host(ctx), as_json)


@procedures.command("lint")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def lint_(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> int:
    """Find mistakes in procedures (all of them, or those named). Exit 2 when there are errors.

    \b
    Examples:
      stackctl procedures lint
      stackctl procedures lint mine --json
    """
    from stackctl.procedures import locate
    from stackctl.procedures.lint import lint_pages

    folder = _stack_folder(ctx)
    known = locate.find_all(folder)
    pages = [locate.page(name, folder) for name in names] if names else list(known.values())
    found = lint_pages(pages)
    errors = sum(finding.severity == "error" for _, finding in found)
    if as_json:
        listed = [
            {"path": str(path), "line": f.line, "severity": f.severity, "rule": f.rule, "text": f.text}
            for path, f in found
        ]
        click.echo(json.dumps({"schema": 1, "findings": listed, "errors": errors}))
    else:
        for path, finding in found:
            click.echo(f"{path}:{finding.line}: {finding.severity}: {finding.rule}: {finding.text}")
        click.echo(f"{len(pages)} procedures, {errors} errors, {len(found) - errors} warnings", err=True)
    return 2 if errors else 0


@procedures.command("history")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--last", "-n", default=20, show_default=True, help="How many.")
@click.pass_context
def history_(ctx: click.Context, as_json: bool, last: int) -> None:
    """What was run here, newest last.

    \b
    Examples:
      stackctl procedures history --last 5
    """
    from stackctl.procedures import journal, use

    records = journal.history(use.runs_of(_host(ctx)))[-last:]
    if as_json:
        listed = [
            {
                "run": r.id,
                "procedure": r.procedure,
                "started": r.started,
                "result": r.result,
                "exit_code": r.exit_code,
            }
            for r in records
        ]
        click.echo(json.dumps({"schema": 1, "runs": listed}))
        return
    for record in records:
        state = "at work" if record.alive else record.result
        click.echo(
            f"{record.started[:19]}  {record.procedure:<16} {state:<12} {record.id}  {record.error}".rstrip()
        )


@procedures.command("journal")
@click.argument("run_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines, as they are on disk.")
@click.pass_context
def journal_(ctx: click.Context, run_id: str | None, as_json: bool) -> None:
    """Every transition of a run (default: the last one).

    \b
    Examples:
      stackctl procedures journal
      stackctl procedures journal --json
    """
    from stackctl.procedures import journal, use

    record = use.find_run(use.runs_of(_host(ctx)), run_id)
    for line in journal.read(record.run_dir):
        if as_json:
            click.echo(json.dumps(line))
            continue
        rest = {
            k: v
            for k, v in line.items()
            if k not in ("at", "event", "step", "output", "title") and v not in ("", None)
        }
        shown = " ".join(f"{key}={value}" for key, value in rest.items())
        click.echo(f"{line['at'][11:23]}  {line['event']:<14} {line.get('step', ''):<18} {shown}".rstrip())
        for row in str(line.get("output", "")).splitlines()[-10:]:
            click.echo(f"              | {row}")

"""`stackctl init`: a commented stack.yaml."""

from __future__ import annotations

from pathlib import Path

import click

from stackctl.cli import output


@click.command()
@click.option("--name", help="Name of the stack (default: this folder's).")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "local"]),
    default="auto",
    show_default=True,
    help="What the services run as.",
)
@click.option("--force", is_flag=True, help="Replace a stack file that is there.")
@click.pass_context
def init(context: click.Context, name: str | None, runtime: str, force: bool) -> None:
    """Write a commented stack.yaml into this folder.

    \b
    Examples:
      stackctl init
      stackctl -f lab/stack.yaml init --name lab --runtime local
    """
    from stackctl.config import loader
    from stackctl.errors import UsageError

    path = loader.find(context.find_root().obj["stack_file"])
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", fix="stackctl init --force, or edit it")
    write_stack_file(path, name, runtime)
    output.say(f"wrote {path}; next: stackctl up")


def write_stack_file(path: Path, name: str | None = None, runtime: str = "auto") -> None:
    from pydantic import ValidationError

    from stackctl.config import StackConfig, problems, sample
    from stackctl.errors import ConfigError
    from stackctl.operations.firstrun import stack_name

    chosen = name or stack_name(path.absolute().parent)
    try:
        StackConfig.model_validate({"name": chosen, "runtime": runtime})
    except ValidationError as error:
        found = problems.explain(error, StackConfig, {})
        raise ConfigError("a stack cannot be called so", problems=found, fix="give another --name") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(sample.starter(chosen, runtime))
    aside.rename(path)

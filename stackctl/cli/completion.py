"""`stackctl completion SHELL`: a script for the shell, made by click from the commands themselves."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL; commands, options, and live service and model names.

    \b
    Examples:
      stackctl completion bash > ~/.local/share/bash-completion/completions/stackctl
      stackctl completion zsh > ~/.zfunc/_stackctl
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, "stackctl", "_STACKCTL_COMPLETE")
    click.echo(script.source())

"""`stackctl secrets`: names and ages of the stack's secrets; never their values."""

from __future__ import annotations

import sys

import click

from stackctl.cli import context as contexts
from stackctl.cli import output


@click.group()
def secrets() -> None:
    """List, set and rotate the stack's secrets. Values are never shown.

    \b
    Examples:
      stackctl secrets list
      stackctl secrets rotate webui_secret_key
      printf %s "$TOKEN" | stackctl secrets set hf_token
    """


@secrets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List the secrets: name, when it changed, where its file is, and what `rotate` would do.

    \b
    Examples:
      stackctl secrets list
      stackctl secrets list --json
    """
    from stackctl.operations.secret_kinds import on_rotate, rotatable
    from stackctl.runtime.secrets import SecretStore

    config = contexts.load(context).config
    store = SecretStore(config.name)
    found = [store.info(name) for name in store.names()]
    if as_json:
        entries = [
            {
                "name": one.name,
                "changed": one.changed.isoformat(),
                "mode": f"{one.mode:04o}",
                "file": str(store.path(one.name)),
                "rotatable": rotatable(config, one.name),
                "on_rotate": on_rotate(config, one.name),
                "value": "***",
            }
            for one in found
        ]
        output.emit_json("stackctl.secrets/1", {"secrets": entries})
        return
    rows = [
        (
            one.name,
            f"{one.changed:%Y-%m-%d %H:%M}",
            f"{one.mode:04o}",
            str(store.path(one.name)),
            on_rotate(config, one.name),
        )
        for one in found
    ]
    click.echo(output.table(("NAME", "CHANGED", "MODE", "FILE", "ON ROTATE"), rows))


@secrets.command("set")
@click.argument("name", shell_complete=contexts.complete_secret)
@click.pass_context
def set_(context: click.Context, name: str) -> None:
    """Set NAME, asked for at a terminal or read from standard input: never from the command line.

    \b
    Examples:
      stackctl secrets set hf_token
      printf %s "$TOKEN" | stackctl secrets set hf_token
    """
    from stackctl.runtime import audit
    from stackctl.runtime.secrets import SecretStore

    stack = contexts.load(context).config.name
    SecretStore(stack).path(name)  # a name that is none is refused before anybody types a value
    if sys.stdin.isatty():
        value = click.prompt(f"Value of {name}", hide_input=True, err=True)
    else:
        value = sys.stdin.read()
    with audit.recording(stack, "secrets set", secret=name):
        SecretStore(stack).set(name, value)
    output.say(f"set {name}; services get it at their next restart")


@secrets.command()
@click.argument("name", shell_complete=contexts.complete_secret)
@click.pass_context
def rotate(context: click.Context, name: str) -> None:
    """Replace NAME by a new random value, and restart the services that use it.

    Refused where that would be of no use: for a token that somebody else issued (set the new one instead),
    and for a first password that the service has stored already (change it there). When a service does not
    become healthy with the new value, the old one is put back.

    \b
    Examples:
      stackctl secrets rotate webui_secret_key
      stackctl secrets rotate proxy_key
    """
    from stackctl.operations.rotation import rotate as rotate_secret

    stack = contexts.running_stack(context)
    restarted = rotate_secret(stack, name)
    output.say(f"rotated {name}" + (f"; restarted {', '.join(restarted)}" if restarted else ""))

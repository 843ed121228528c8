"""`llm-engine login` and `logout`: names and passwords for private registries."""

from __future__ import annotations

import sys

import click

from llm_engine.errors import EngineError
from llm_engine.models.registry.credentials import Credential, Credentials


@click.command()
@click.argument("host")
@click.option("-u", "--username", help="The name.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.option(
    "--token-server",
    default="",
    metavar="NAME",
    help="A host that may have the password too, because the registry sends its users there for a token.",
)
def login(host: str, username: str | None, password_stdin: bool, token_server: str) -> None:
    """Keep a name and a password for the registry at HOST (name or name:port)."""
    name = username or click.prompt("Username")
    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True)
    if not password:
        raise EngineError(f"no password for {host} was given")
    store = Credentials()
    store.save(host, Credential(name, password, token_server))
    click.echo(f"the password for {host} is kept in {store.path}")


@click.command()
@click.argument("host")
def logout(host: str) -> None:
    """Forget the password for the registry at HOST."""
    if not Credentials().remove(host):
        raise EngineError(f"no password is kept for {host}")
    click.echo(f"the password for {host} is forgotten")

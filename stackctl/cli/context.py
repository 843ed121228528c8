"""From click's context to a stack: one helper, used by every command that works on one."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stackctl.config import Loaded
    from stackctl.operations.context import Stack


def load(context: click.Context) -> Loaded:
    from stackctl.config import load_with_origins

    root = context.find_root()
    settings = root.obj or root.params  # a shell that completes has parsed the options, and run nothing
    return load_with_origins(settings.get("stack_file"), settings.get("overlay"))


def stack(context: click.Context) -> Stack:
    from stackctl.operations.context import open_stack

    return open_stack(load(context))


def running_stack(context: click.Context) -> Stack:
    """For commands that look at what runs: on the runtime that it runs on."""
    from stackctl.operations.moving import where_it_runs

    return where_it_runs(stack(context))


def show_commands() -> None:
    """`-v`: each outside command on stderr, as it would be typed."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("+ %(message)s"))
    logger = logging.getLogger("stackctl.command")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def complete_service(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Live names for the shell: the services of the stack file in the current folder."""
    try:
        names = load(context).config.services.enabled()
    except Exception:  # noqa: BLE001 - completion must never print an error into a prompt
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    try:
        tags = stack(context).engine(timeout=2).tags()
    except Exception:  # noqa: BLE001 - as above
        return []
    return [str(tag["name"]) for tag in tags if str(tag["name"]).startswith(incomplete)]


def complete_secret(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from stackctl.runtime.secrets import SecretStore

    try:
        names = SecretStore(load(context).config.name).names()
    except Exception:  # noqa: BLE001 - as above
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_check(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from stackctl.doctor.checkup import CHECKS

    return [name for name in CHECKS if name.startswith(incomplete)]


def known_services(chosen: tuple[str, ...], known: list[str]) -> list[str]:
    """The chosen ones, checked; all when none is chosen."""
    import difflib

    from stackctl.errors import UsageError

    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise UsageError(
                f"no service '{name}' in this stack{hint}; there are: {', '.join(known)}",
                fix="stackctl status",
            )
    return list(chosen) or known

"""The `llm-engine` entry point: a group that imports a command's module only when that command runs.

Verbs such as `list` are typed often and must start at once, so nothing heavy is imported here. This is also
the one place where an error becomes text on stderr and an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback

import click

from llm_engine import __version__
from llm_engine.cli.commands import COMMANDS
from llm_engine.errors import EngineError


class LazyGroup(click.Group):
    """Resolves subcommands from the table in `llm_engine.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"No such command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The help texts come from the table: importing every command to print --help would be slow.
        with formatter.section("Commands"):
            formatter.write_dl([(name, e.help) for name, e in COMMANDS.items() if not e.hidden])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-v", "-V", "--version", prog_name="llm-engine")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """A drop-in for Ollama that also speaks the OpenAI and Anthropic APIs."""


def main(argv: list[str] | None = None) -> None:
    args = sys.argv[1:] if argv is None else argv
    debug = "--debug" in args
    try:
        code = cli.main(args=args, prog_name="llm-engine", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except EngineError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        if error.fix:
            click.echo(f"fix: {error.fix}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `llm-engine list | head`: not an error, but stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # last line of defence: a bug is reported, not dumped
        if debug:
            raise
        click.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
        click.echo("fix: run the same command with --debug and report what it prints", err=True)
        sys.exit(1)

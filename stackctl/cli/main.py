"""The `stackctl` entry point: a group that imports a command's module only when that command runs.

`stackctl --version` and `--help` must start as fast as click allows, so nothing heavy is imported here.
This is also the one place where an error becomes text and an exit code.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import sys
import traceback

import click

from stackctl import __version__
from stackctl.cli.commands import COMMANDS
from stackctl.errors import ConfigError, StackctlError, UsageError


class LazyGroup(click.Group):
    """Resolves subcommands from the table in `stackctl.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(entry.module)
        command = getattr(module, entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise click.UsageError(f"no such command '{name}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        if (name := ctx.params.get("host")) is not None:
            from stackctl.cli.hosts import run_there

            flags = ["-v"] if ctx.params.get("verbose") else []
            flags += ["--debug"] if ctx.params.get("debug") else []
            if overlay := ctx.params.get("overlay"):
                flags += ["--overlay", overlay]
            words = [*ctx._protected_args, *ctx.args]
            stack_file = ctx.params.get("stack_file") or os.environ.get("STACKCTL_FILE")
            return run_there(name, flags, words, stack_file)
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The help texts come from the table: importing every command to print --help would be slow.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stackctl")
@click.option("-f", "--file", "stack_file", metavar="FILE", help="Stack file (default: ./stack.yaml).")
@click.option("--host", metavar="HOST", help="Run the command on that host, over SSH.")
@click.option("--overlay", metavar="NAME", help="Lay stack.NAME.yaml over the stack file.")
@click.option("-v", "--verbose", is_flag=True, help="Print each outside command as it would be typed.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(
    ctx: click.Context,
    stack_file: str | None,
    host: str | None,
    overlay: str | None,
    verbose: bool,
    debug: bool,
) -> None:
    """Run a private LLM stack on this host."""
    ctx.obj = {
        "stack_file": stack_file or os.environ.get("STACKCTL_FILE"),
        "overlay": overlay,
        "verbose": verbose,
        "debug": debug,
    }
    if verbose:
        from stackctl.cli.context import show_commands

        show_commands()


def _usage(error: click.UsageError) -> UsageError:
    """What click has to say of the command line, in the form of every other error."""
    text = re.sub(
        r"\.? \(?Did you mean (?:one of: )?(.*?)\?\)?$", r" (did you mean \1?)", error.format_message()
    )
    text = text.removesuffix(".")
    command = error.ctx.command_path if error.ctx else "stackctl"
    return UsageError(f"{text[:1].lower()}{text[1:]}", fix=f"{command} --help")


def render_error(error: StackctlError) -> str:
    lines = [f"error: {error.what}"]
    if isinstance(error, ConfigError):
        lines += [f"  {problem}" for problem in error.problems]
    if error.fix:
        lines.append(f"fix: {error.fix}")
    if error.more:
        lines.append(f"more: {error.more}")
    return "\n".join(lines)


class Terminated(BaseException):
    """SIGTERM as an exception: what is being run is ended as after Ctrl-C, and not left behind."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def main(argv: list[str] | None = None) -> None:
    args = sys.argv[1:] if argv is None else argv
    debug = "--debug" in args
    # Nearly all that a start makes stays: looking for garbage at each 700 objects is a tenth of its cost.
    gc.set_threshold(50_000)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        # Commands that have an exit code of their own (health, plan) return it.
        code = cli.main(args=args, prog_name="stackctl", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the help itself
        sys.exit(2)
    except click.UsageError as error:
        click.echo(render_error(_usage(error)), err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Terminated:
        click.echo("terminated", err=True)
        sys.exit(143)
    except StackctlError as error:
        if debug:
            traceback.print_exc()
        click.echo(render_error(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `stackctl logs | head`: not an error, but stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # Last line of defence: a bug is reported, not dumped.
        if debug:
            raise
        click.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
        click.echo("fix: run the same command with --debug and report what it prints", err=True)
        sys.exit(1)

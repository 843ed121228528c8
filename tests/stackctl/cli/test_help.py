"""What every command owes its reader: an example to type, JSON where it reads, errors of one form."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from stackctl.cli.commands import COMMANDS
from stackctl.cli.main import cli
from tests.support.stacks import Folder


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, f"{path} {name}")
    else:
        yield path, command


def every() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, entry in COMMANDS.items():
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        found.update(leaves(command, name))
    return found


EVERY = every()


def examples(command: click.Command) -> list[str]:
    lines = (command.help or "").splitlines()
    return [line.strip() for line in lines if re.search(r"(^|[\s(\"])stackctl ", line.strip())]


@pytest.mark.parametrize("path", EVERY)
def test_every_command_shows_how_it_is_typed(path: str) -> None:
    assert any(re.search(rf"stackctl( -[-\w]+( \S+)?)* {path}\b", line) for line in examples(EVERY[path]))


@pytest.mark.parametrize("path", EVERY)
def test_every_option_of_an_example_is_one(path: str) -> None:
    known = {
        name for parameter in EVERY[path].params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    shared = {name for parameter in cli.params for name in parameter.opts} | {"--help"}
    command = EVERY[path]
    if command.context_settings.get("ignore_unknown_options"):
        return  # what follows is another program's
    for line in examples(command):
        if not (found := re.search(rf"stackctl((?: -[-\w]+(?: \S+)?)*) {path}\b([^|>)]*)", line)):
            continue
        typed = re.split(r"\s{2,}|&&|\|\|", found[2].rstrip())[0]  # what it does may stand behind it
        words = shlex.split(typed, comments=True)
        _, rest, _ = command.make_parser(click.Context(command)).parse_args(
            [w for w in words if w not in shared]
        )
        assert not rest, line
        for word in words:
            if word.startswith("--") and word != "--":
                assert word.split("=")[0] in known | shared, line


READING = (
    "status", "logs", "plan", "render", "top", "history", "doctor", "health", "outdated", "generations",
    "config show", "config validate", "models list", "models show", "models sync", "secrets list",
    "backup list",
    "install-units", "procedures list", "procedures history", "tunnel status", "tunnel list",
    "hosts status", "hosts list",
)  # fmt: skip


@pytest.mark.parametrize("path", READING)
def test_what_reads_can_say_it_as_json(path: str) -> None:
    assert any("--json" in parameter.opts for parameter in EVERY[path].params)


@pytest.mark.parametrize(
    ("typed", "says", "fix", "code"),
    [
        ("stauts", "did you mean 'status'?", "stackctl --help", 2),
        ("config shw", "did you mean 'show'?", "stackctl config --help", 2),
        ("config show --orign", "did you mean '--json', '--origin'?", "stackctl config show --help", 2),
        ("up --jsn", "did you mean '--json'?", "stackctl up --help", 2),
        ("exec engin true", "did you mean 'engine'?", "stackctl status", 2),
        ("logs --since banana", "'banana' is not a time", "stackctl logs --since 10m", 2),
        ("secrets set Bad-Name", "not a secret's name", "stackctl secrets set bad_name", 2),
    ],
)
def test_a_mistake_gets_a_suggestion_and_a_fix(
    folder: Folder, typed: str, says: str, fix: str, code: int
) -> None:
    folder.write({"runtime": "local"})
    done = folder.run(*typed.split(), input="")
    assert done.code == code and done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ") and says in first and rest == [f"fix: {fix}"]


def test_a_group_without_a_command_prints_its_help(folder: Folder) -> None:
    done = folder.run("models")
    assert done.code == 2 and done.err.startswith("Usage: stackctl models") and "error:" not in done.err

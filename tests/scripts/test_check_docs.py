"""The documentation check finds what it is for: dead links, commands and flags that do not exist."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from scripts import check_docs


@pytest.fixture
def program() -> click.Command:
    @click.group()
    @click.option("-f", "--file")
    def tool(file: str) -> None: ...

    @tool.command()
    @click.option("--json", is_flag=True)
    @click.option("-n", type=int)
    @click.argument("names", nargs=-1)
    def status(json: bool, n: int, names: list[str]) -> None: ...

    return tool


@pytest.mark.parametrize(
    "line",
    [
        "tool status --json",
        "tool -f other.yaml status web",
        "sudo /usr/bin/tool status -n5 || echo no",
        "X=1 tool status --json | head -3",
        "tool --help",
        "tool status -- --anything",
    ],
)
def test_accepts_what_exists(program: click.Command, line: str) -> None:
    for raw in check_docs.words_of(line):
        words = check_docs.strip_prefix(raw)
        if words[0] == "tool":
            assert check_docs.check_command(words, program) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tool stauts", "has no command stauts"),
        ("tool status --jsn", "has no option --jsn"),
        ("tool status -x", "has no option -x"),
    ],
)
def test_refuses_what_does_not(program: click.Command, line: str, says: str) -> None:
    problem = check_docs.check_command(line.split(), program)
    assert problem is not None
    assert says in problem


def test_finds_dead_links_and_anchors(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[ok](there.md) [ok](there.md#a-heading-twice) [web](https://example.org)\n"
        "[gone](gone.md)\n[lost](there.md#lost)\n```\n[not a link](nowhere.md)\n```\n`[nor](this)`\n"
    )
    assert [(p.line, p.text) for p in check_docs.check_links(page)] == [
        (2, "dead link: gone.md"),
        (3, "dead anchor: there.md#lost"),
    ]


def test_reads_commands_from_blocks_and_inline_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Run `make up` now.\n```sh\n$ make test\n```\n```yaml\nmake: nothing\n```\n")
    assert list(check_docs.commands_in(page)) == [(1, "make up"), (3, "make test")]

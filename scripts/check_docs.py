"""Hold the documentation to the truth: no dead link, and every command and flag it names exists.

Checks README.md, the other pages at the root, docs/ and procedures/. Commands are looked for in
fenced `sh` and `console` blocks and in `inline code`; they are resolved against the programs' own
command trees and the Makefile.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```+|~~~+)\s*([\w-]*)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = {"sh", "bash", "console", "shell"}


class Problem(NamedTuple):
    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("procedures/**/*.md")]
    return sorted(found)


def slug(heading: str) -> str:
    """The anchor that the forges make of a heading."""
    text = re.sub(r"[`*_]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(m.group(1)) for m in re.finditer(r"^#{1,6}\s+(.*)$", page.read_text(), re.M)}


def check_links(page: Path) -> Iterator[Problem]:
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        if fenced:
            continue
        for match in LINK.finditer(INLINE.sub("", line)):
            target = match.group(1) or match.group(2)
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            goal = (page.parent / path).resolve() if path else page
            if not goal.exists():
                yield Problem(page, number, f"dead link: {target}")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
                yield Problem(page, number, f"dead anchor: {target}")


def commands_in(page: Path) -> Iterator[tuple[int, str]]:
    """Every command line that the page shows, with the number of its line."""
    language: str | None = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if fence:
            language = None if language is not None else fence.group(2)
            continue
        if language in SHELL:
            yield number, re.sub(r"^\s*\$ ", "", line)
        elif language is None:
            yield from ((number, m.group(1)) for m in INLINE.finditer(line))


def programs() -> dict[str, click.Command]:
    from llm_engine.cli.main import cli as engine

    from stackctl.cli.main import cli as stackctl

    return {"stackctl": stackctl, "llm-engine": engine}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))


def words_of(text: str) -> list[list[str]]:
    """The simple commands of a line: split at pipes, `&&` and `;`, without comments and redirections."""
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        tokens = list(lexer)
    except ValueError:
        return []
    result: list[list[str]] = [[]]
    for token in tokens:
        if set(token) <= set("|&;()"):
            result.append([])
        elif not set(token) <= set("<>"):
            result[-1].append(token)
    return [words for words in result if words]


def options_of(command: click.Command, context: click.Context) -> set[str]:
    names: set[str] = set()
    for parameter in command.get_params(context):
        names.update(parameter.opts)
        names.update(parameter.secondary_opts)
    return names


def check_command(words: list[str], program: click.Command) -> str | None:
    """What is wrong with the words after the program's name, or None."""
    command, path = program, [words[0]]
    context = click.Context(command, info_name=words[0])
    allowed = options_of(command, context)
    for word in words[1:]:
        if word == "--":
            return None
        if word.startswith("-") and len(word) > 1 and not re.match(r"-\d", word):
            flag = word.split("=", 1)[0]
            known = flag in allowed or flag in ("-h", "--help")
            clustered = not flag.startswith("--") and all(f"-{letter}" in allowed for letter in flag[1:])
            joined = not flag.startswith("--") and flag[:2] in allowed
            if not (known or clustered or joined):
                return f"`{' '.join(path)}` has no option {flag}"
        elif isinstance(command, click.Group):
            if not re.fullmatch(r"[a-z][\w-]*", word):
                continue  # a value, a placeholder, `...`
            child = command.get_command(context, word)
            if child is None:
                # The value of a group's own option (`-f other.yaml up`) is not a command.
                if re.search(r"[./=]", word) or path[-1].startswith("-"):
                    continue
                return f"`{' '.join(path)}` has no command {word}"
            command, path = child, [*path, word]
            context = click.Context(command, info_name=word, parent=context)
            allowed |= options_of(command, context)
    return None


def strip_prefix(words: list[str]) -> list[str]:
    """Without `sudo`, variable assignments and the path of the program."""
    while words and (words[0] == "sudo" or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    return [words[0].rsplit("/", 1)[-1], *words[1:]] if words else []


def check_commands(page: Path, known: dict[str, click.Command], targets: set[str]) -> Iterator[Problem]:
    for number, text in commands_in(page):
        for raw in words_of(text):
            words = strip_prefix(raw)
            if not words:
                continue
            if words[0] in known:
                problem = check_command(words, known[words[0]])
                if problem:
                    yield Problem(page, number, problem)
            elif words[0] == "make" and len(words) > 1:
                for target in words[1:]:
                    if re.fullmatch(r"[a-z][\w-]*", target) and target not in targets:
                        yield Problem(page, number, f"the Makefile has no target {target}")


def main() -> int:
    known, targets = programs(), make_targets()
    problems = [p for page in pages() for p in (*check_links(page), *check_commands(page, known, targets))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

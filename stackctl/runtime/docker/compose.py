"""`docker compose` command lines, as data, and the one place that runs them with a clean environment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from stackctl import paths
from stackctl.runtime.command import CommandResult, run
from stackctl.runtime.generations import Generation


def argv(stack: str, file: Path, *arguments: str) -> list[str]:
    base = ["docker", "compose", "--ansi", "never", "--progress", "plain"]
    return [*base, "-p", stack, "--project-directory", str(file.parent), "-f", str(file), *arguments]


def compose(
    stack: str,
    file: Path,
    *arguments: str,
    timeout: float = 600.0,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
) -> CommandResult:
    return run(argv(stack, file, *arguments), timeout=timeout, on_line=on_line, check=check)


def up_arguments(services: Sequence[str] | None) -> list[str]:
    arguments = ["up", "--detach", "--no-build", "--remove-orphans"]
    return arguments if services is None else [*arguments, "--no-deps", *services]


def hashes(stack: str, generation: Generation, *, anew: bool = False) -> dict[str, str]:
    """Service -> compose's own hash of its settings: equal to the label of a container that runs with them.

    Cached beside the generations: a generation never changes. What compose makes of it may, when compose is
    updated: who finds a difference asks `anew` before he calls it one.
    """
    cache = paths.state_dir(stack) / "cache" / f"hashes-{generation.meta['digest'][:24]}.json"
    if not anew:
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, str] = json.loads(cache.read_text())
            return found
    found = hashes_of(stack, generation.file)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(found))
    return found


def hashes_of(stack: str, file: Path) -> dict[str, str]:
    done = compose(stack, file, "config", "--hash", "*", timeout=30)
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

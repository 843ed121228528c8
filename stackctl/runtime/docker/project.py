"""Whose containers a compose project holds.

Compose goes by the name alone, and names projects after folders as `init` names stacks: `up --remove-orphans`
and `down` would remove containers of another unasked. A container is the stack's own when its label says so.
"""

from __future__ import annotations

from collections.abc import Callable

from stackctl.errors import PreflightError
from stackctl.runtime.command import CommandResult, run

PROJECT = "com.docker.compose.project"
OURS = "dev.stackctl.stack"


def _run(argv: list[str]) -> CommandResult:
    return run(argv, timeout=60)


def strangers(project: str, stack: str, command: Callable[[list[str]], CommandResult] = _run) -> list[str]:
    """Names of the project's containers that are not of `stack`; stopped ones, too."""
    form = f'{{{{.Names}}}}\t{{{{.Label "{OURS}"}}}}'
    found = command(["docker", "ps", "--all", "--filter", f"label={PROJECT}={project}", "--format", form])
    lines = (line.partition("\t") for line in found.stdout.splitlines() if line.strip())
    return sorted(name for name, _, owner in lines if owner != stack)


def refuse_strangers(project: str, stack: str) -> None:
    if names := strangers(project, stack):
        raise PreflightError(told(project, names), fix=other_name(stack))


def told(project: str, names: list[str]) -> str:
    return (
        f"Docker has containers of a compose project '{project}' that are not this stack's, and would be "
        f"removed: {', '.join(names)}"
    )


def other_name(stack: str) -> str:
    return f"set another name: in the stack file, such as name: {stack[:35]}-llm"

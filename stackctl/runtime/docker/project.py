"""Whose containers a compose project holds.

Compose goes by the name alone, and names projects after folders as `init` names stacks: `up --remove-orphans`
and `down` would remove containers of another unasked. A container is the stack's own when its label says so,
and when it was rendered into the stack's own state folder: another user, too, may call a stack `ai`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stackctl import paths
from stackctl.errors import PreflightError
from stackctl.runtime.command import CommandResult, run

PROJECT = "com.docker.compose.project"
RENDERED_IN = "com.docker.compose.project.working_dir"
OURS = "dev.stackctl.stack"


def is_ours(labels: Mapping[str, str], stack: str) -> bool:
    if labels.get(OURS) != stack:
        return False
    state, rendered = paths.state_dir(stack).resolve(), labels.get(RENDERED_IN)
    return rendered is None or Path(rendered).resolve().is_relative_to(state)


def _run(argv: list[str]) -> CommandResult:
    return run(argv, timeout=60)


def strangers(project: str, stack: str, command: Callable[[list[str]], CommandResult] = _run) -> list[str]:
    """Names of the project's containers that are not of `stack`; stopped ones, too."""
    form = "\t".join(["{{.Names}}", *(f'{{{{.Label "{label}"}}}}' for label in (OURS, RENDERED_IN))])
    found = command(["docker", "ps", "--all", "--filter", f"label={PROJECT}={project}", "--format", form])
    names = []
    for line in filter(str.strip, found.stdout.splitlines()):
        name, owner, rendered = (*line.split("\t"), "", "")[:3]
        labels = {OURS: owner} | ({RENDERED_IN: rendered} if rendered else {})
        if not is_ours(labels, stack):
            elsewhere = owner == stack
            names.append(f"{name} (of a stack rendered in {rendered})" if elsewhere else name)
    return sorted(names)


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

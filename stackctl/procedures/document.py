"""Reads a procedure page: YAML front matter, prose, and fenced `step` blocks of YAML.

Pure: text in, `Procedure` out, or `ProcedureInvalid` with every problem and its line. The prose between the
steps is kept, because `show` and `docs` print it: the page a person reads and the program are the same
file.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stackctl.errors import ConfigError
from stackctl.procedures import inputs
from stackctl.procedures.model import FrontMatter, StepSpec

_FENCE = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})\s*(?P<info>[^\n`]*?)\s*$")


class ProcedureInvalid(ConfigError):
    """A page that cannot be read as a procedure."""


@dataclass(frozen=True)
class Prose:
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    spec: StepSpec
    source: str
    line: int


@dataclass(frozen=True)
class Procedure:
    front: FrontMatter
    parts: tuple[Prose | Step, ...]
    text: str
    path: Path | None = None

    @property
    def id(self) -> str:
        return self.front.id

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(part for part in self.parts if isinstance(part, Step))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(path: Path) -> Procedure:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ProcedureInvalid(f"cannot read {path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ProcedureInvalid(f"cannot read {path}: {error.strerror}") from None
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> Procedure:
    problems: list[str] = []
    front, body_line, lines = _front_matter(text, problems)
    parts = _parts(lines, body_line, problems)
    seen: dict[str, int] = {}
    for part in parts:
        if isinstance(part, Step):
            if part.spec.id in seen:
                problems.append(
                    f"line {part.line}: step id {part.spec.id!r} is used on line {seen[part.spec.id]} too"
                )
            seen.setdefault(part.spec.id, part.line)
    if front is not None and not seen and not problems:
        problems.append("there is no ```step block in it")
    if problems or front is None:
        where = path.name if path else "the procedure"
        raise ProcedureInvalid(
            f"{where} is not a valid procedure",
            problems=problems,
            fix=f"edit {path}" if path else None,
        )
    return Procedure(front, tuple(parts), text, path)


def _front_matter(text: str, problems: list[str]) -> tuple[FrontMatter | None, int, list[str]]:
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        problems.append("line 1: it must begin with YAML front matter between two lines of ---")
        return None, 1, lines
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        problems.append("line 1: the front matter is not closed by a line of ---")
        return None, 1, []
    data = _yaml("\n".join(lines[1:end]), 2, problems)
    front: FrontMatter | None = None
    if data is not None:
        try:
            front = FrontMatter.model_validate(data)
        except ValidationError as error:
            problems.extend(_describe(error, "front matter", FrontMatter))
        else:
            problems.extend(f"front matter: {wrong}" for wrong in inputs.wrong_defaults(front))
    return front, end + 2, lines[end + 1 :]


def _parts(lines: list[str], first_line: int, problems: list[str]) -> list[Prose | Step]:
    parts: list[Prose | Step] = []
    prose: list[str] = []
    prose_line = first_line
    number = 0
    while number < len(lines):
        match = _FENCE.match(lines[number])
        if match is None:
            prose.append(lines[number])
            number += 1
            continue
        start = number
        fence = match["fence"]
        closing = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}\s*$")
        number += 1
        while number < len(lines) and not closing.match(lines[number]):
            number += 1
        if match["info"].split(" ")[0] != "step":
            prose.extend(lines[start : number + 1])
            number += 1
            continue
        line = first_line + start
        if number >= len(lines):
            problems.append(f"line {line}: the step block is not closed")
        if "\n".join(prose).strip():
            parts.append(Prose("\n".join(prose).strip("\n"), prose_line))
        source = "\n".join(lines[start + 1 : number])
        number += 1
        prose, prose_line = [], first_line + number
        step = _step(source, line, problems)
        if step is not None:
            parts.append(step)
    if "\n".join(prose).strip():
        parts.append(Prose("\n".join(prose).strip("\n"), prose_line))
    return parts


def _step(source: str, line: int, problems: list[str]) -> Step | None:
    data = _yaml(source, line + 1, problems)
    if data is None:
        return None
    try:
        return Step(StepSpec.model_validate(data), source, line)
    except ValidationError as error:
        name = data.get("id", "?")
        problems.extend(_describe(error, f"line {line}: step {name}", StepSpec))
        return None


def _yaml(source: str, first_line: int, problems: list[str]) -> dict[str, Any] | None:
    try:
        data = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = first_line + (mark.line if mark else 0)
        problems.append(f"line {line}: not valid YAML: {getattr(error, 'problem', error)}")
        return None
    if not isinstance(data, dict):
        problems.append(f"line {first_line}: expected keys and values, got {type(data).__name__}")
        return None
    return {str(key): value for key, value in data.items()}


def _describe(error: ValidationError, where: str, model: type[Any]) -> list[str]:
    from stackctl.procedures.suggest import did_you_mean

    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            hint = (
                did_you_mean(str(problem["loc"][-1]), list(model.model_fields))
                if len(problem["loc"]) == 1
                else ""
            )
            lines.append(f"{where}: {path}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: {path}: is required")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {path + ': ' if path else ''}{message}")
    return lines

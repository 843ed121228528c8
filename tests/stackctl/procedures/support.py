"""Procedures written in a test, and a way to run them that needs no stack."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackctl.procedures import inputs
from stackctl.procedures.document import Procedure, parse
from stackctl.procedures.engine import Engine, RunResult
from stackctl.procedures.people import Person

FRONT = "id: demo\ntitle: A demo\nrequires: {stack: false}\nlock: none\n"


def page(*steps: str, front: str = FRONT) -> Procedure:
    blocks = [f"```step\n{textwrap.dedent(step).strip()}\n```\n" for step in steps]
    return parse(f"---\n{front}---\n\nWhy.\n\n" + "\n".join(blocks))


@dataclass
class Bench:
    """A folder to change, a folder for runs, and what the runs said."""

    root: Path
    said: list[str] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def file(self, name: str) -> Path:
        return self.root / name

    def person(self, **options: Any) -> Person:
        return Person(say=self.said.append, **options)

    def run(self, procedure: Procedure, given: Mapping[str, Any] | None = None, **person: Any) -> RunResult:
        values = inputs.resolve(procedure.front, given or {})
        return Engine(procedure, values, None, self.runs, self.person(**person)).start()

"""Write the table of docs/configuration.md from the model of stack.yaml."""

from __future__ import annotations

from pathlib import Path

from stackctl.config import sample

PAGE = Path(__file__).resolve().parents[1] / "docs/configuration.md"
HEADING = "## Every key\n"

head, _, _ = PAGE.read_text().partition(HEADING)
PAGE.write_text(f"{head}{HEADING}\n{sample.reference()}")

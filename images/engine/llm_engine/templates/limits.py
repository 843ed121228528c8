"""A budget for one rendering: a stranger's template must neither hang the server nor fill its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llm_engine.templates.errors import TemplateLimitError


@dataclass(slots=True)
class Budget:
    """Counts steps and bytes; every loop turn, call and write of an interpreter goes through here."""

    max_steps: int = 2_000_000
    max_chars: int = 64 * 1024 * 1024
    max_depth: int = 100
    max_seconds: float = 10.0
    steps: int = 0
    chars: int = 0
    started: float = field(default_factory=time.monotonic)

    def step(self, count: int = 1) -> None:
        before = self.steps
        self.steps = before + count
        if self.steps > self.max_steps:
            raise TemplateLimitError(f"the template took more than {self.max_steps} steps")
        # The clock is read every 1024 steps: a step may be a costly filter, never an endless one.
        if before >> 10 != self.steps >> 10 and time.monotonic() - self.started > self.max_seconds:
            raise TemplateLimitError(f"the template ran longer than {self.max_seconds:g} seconds")

    def text(self, length: int) -> None:
        """Account for `length` characters that the template made."""
        self.chars += length
        if self.chars > self.max_chars:
            raise TemplateLimitError(f"the template wrote more than {self.max_chars} characters")

    def depth(self, level: int) -> None:
        if level > self.max_depth:
            raise TemplateLimitError(f"the template calls itself more than {self.max_depth} levels deep")

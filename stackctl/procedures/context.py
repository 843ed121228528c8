"""What an action is given: the stack it works on, the run it belongs to, a way to report, its deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackctl.errors import PreflightError, UnhealthyError

if TYPE_CHECKING:
    from stackctl.procedures.host import Host


@dataclass
class Context:
    run_dir: Path
    say: Callable[[str], None]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    host: Host | None = None
    deadline: float = float("inf")
    interactive: bool = False

    @property
    def stack(self) -> Host:
        if self.host is None:
            raise PreflightError(
                "this step works on a stack, and there is no stack.yaml here", fix="stackctl init"
            )
        return self.host

    def remaining(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def wait_until(
        self, probe: Callable[[], str | None], what: str, within: float, every: float = 0.5
    ) -> float:
        """Call `probe` until it returns None; a text is the reason it does not hold yet. Returns the
        seconds it took.
        """
        began = time.monotonic()
        limit = min(began + within, self.deadline)
        told = began
        while True:
            reason = probe()
            now = time.monotonic()
            if reason is None:
                return now - began
            if now >= limit:
                raise UnhealthyError(f"{what}: not within {now - began:.0f} s: {reason}")
            if now - told >= 10:
                self.say(f"waiting for {what}: {reason} ({limit - now:.0f} s left)")
                told = now
            time.sleep(max(0.0, min(every, limit - now)))

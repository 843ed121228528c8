"""What health asks of a runtime: is it there, what runs, what does a command inside a service say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stackctl.runtime.base import StackStatus
from stackctl.runtime.command import CommandResult


class RuntimeUnreachable(Exception):
    """The runtime cannot be asked; the text says why."""


class RuntimeView(Protocol):
    name: str

    def ping(self) -> str:
        """A few words on what answered; RuntimeUnreachable when nothing did."""
        ...

    def status(self) -> StackStatus: ...

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult: ...

"""The stack a procedure works on, as the procedures room sees it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stackctl.operations.context import Stack


class Host(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def runtime_name(self) -> str: ...

    @property
    def state_dir(self) -> Path: ...

    @property
    def folder(self) -> Path: ...

    def facts(self) -> dict[str, Any]:
        """What `${{ stack.… }}` may name."""

    @property
    def handle(self) -> Stack:
        """What the use-cases of `stackctl.operations` take."""

    def is_running(self) -> bool: ...

    def lock(self, purpose: str) -> contextlib.AbstractContextManager[Any]: ...

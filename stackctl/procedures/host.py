"""The stack a procedure works on, as the procedures room sees it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol


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

    def is_running(self) -> bool: ...

    def lock(self, purpose: str) -> contextlib.AbstractContextManager[Any]: ...

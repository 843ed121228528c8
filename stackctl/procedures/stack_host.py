"""The real Host: the stack of a stack file, with its runtime, engine and folders."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackctl.config import load_with_origins
from stackctl.operations.context import Say, Stack, open_stack, to_stderr
from stackctl.runtime.lock import stack_lock


@dataclass(frozen=True)
class StackHost:
    handle: Stack
    lock_wait: float = 0.0

    @classmethod
    def load(cls, stack_file: str | None, overlay: str | None = None, say: Say = to_stderr) -> StackHost:
        return cls(open_stack(load_with_origins(stack_file, overlay), say))

    @property
    def name(self) -> str:
        return self.handle.name

    @property
    def folder(self) -> Path:
        return self.handle.loaded.files[0].parent

    @property
    def state_dir(self) -> Path:
        return self.handle.config.state_path

    @property
    def runtime_name(self) -> str:
        return self.handle.choice.name

    def is_running(self) -> bool:
        return self.handle.store.current() is not None

    def lock(self, purpose: str) -> contextlib.AbstractContextManager[Any]:
        return stack_lock(self.name, wait=self.lock_wait)

    def facts(self) -> dict[str, Any]:
        config, current = self.handle.config, self.handle.store.current()
        previous = self.handle.store.previous()
        return {
            "name": self.name,
            "folder": str(self.folder),
            "runtime": self.runtime_name,
            "data_dir": str(config.data_path),
            "state_dir": str(self.state_dir),
            "engine_url": config.url("engine"),
            "generation": current.number if current else None,
            "previous": previous.number if previous else None,
            "services": list(config.services.enabled()),
            "models": [model.full_name for model in config.models],
            "canary": config.upgrade.canary,
        }

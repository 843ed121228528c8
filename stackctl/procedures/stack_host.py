"""The real Host: the stack of a stack file, with its runtime, engine and folders."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stackctl.config import StackConfig, loader
from stackctl.engine_api import EngineClient
from stackctl.runtime import selection
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.lock import stack_lock


@dataclass
class StackHost:
    config: StackConfig
    stack_file: Path

    @classmethod
    def load(cls, stack_file: str | None) -> StackHost:
        loaded = loader.load_with_origins(stack_file)
        return cls(loaded.config, loaded.files[0])

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def folder(self) -> Path:
        return self.stack_file.parent

    @property
    def state_dir(self) -> Path:
        return self.config.state_path

    @cached_property
    def runtime_name(self) -> str:
        return selection.choose(self.config).name

    @property
    def generations(self) -> GenerationStore:
        return GenerationStore(self.config.name)

    def engine(self) -> EngineClient:
        return EngineClient(self.config.url("engine"))

    def is_running(self) -> bool:
        return self.generations.current() is not None

    def lock(self, purpose: str) -> contextlib.AbstractContextManager[Any]:
        return stack_lock(self.config.name)

    def facts(self) -> dict[str, Any]:
        current = self.generations.current()
        return {
            "name": self.name,
            "folder": str(self.folder),
            "runtime": self.runtime_name,
            "data_dir": str(self.config.data_path),
            "state_dir": str(self.state_dir),
            "engine_url": self.config.url("engine"),
            "generation": current.number if current else None,
            "services": list(self.config.services.enabled()),
        }

"""A stack as the commands handle it: its configuration, its runtime, its generations, and a way to say
things."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.config import Loaded, StackConfig
from stackctl.redact import without_known
from stackctl.runtime.base import Runtime
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.selection import Choice, choose, runtime_of

if TYPE_CHECKING:
    from stackctl.engine_api import EngineClient

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Progress: that nobody reads it any more is no reason to leave a change half-way."""
    try:
        print(without_known(text), file=sys.stderr, flush=True)
    except OSError:
        # What is left in the buffer would fail once more at the exit, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@dataclass(frozen=True)
class Stack:
    loaded: Loaded
    choice: Choice
    runtime: Runtime
    store: GenerationStore
    say: Say = field(default=to_stderr)

    @property
    def config(self) -> StackConfig:
        return self.loaded.config

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def lock_file(self) -> Path:
        """`stack.lock` beside the stack file: which exact image each reference means."""
        return self.loaded.files[0].with_suffix(".lock")

    def engine(self, timeout: float = 10.0) -> EngineClient:
        from stackctl.engine_api import EngineClient  # brings TLS along: not every command talks to it

        return EngineClient(self.config.url("engine"), timeout=timeout)


def open_stack(loaded: Loaded, say: Say = to_stderr) -> Stack:
    choice, store = choose(loaded.config), GenerationStore(loaded.config.name)
    return Stack(loaded, choice, runtime_of(loaded.config, choice.name), store, say)

"""The root of the engine's errors: a situation that a user can cause, with the text that the user shall see.

Each room draws its own tree below `EngineError` (models: `llm_engine.models.errors`); the HTTP side maps
classes to status codes and the command line maps them to exit codes, so neither needs to look into texts."""

from __future__ import annotations


class EngineError(Exception):
    """`str(error)` is what failed and why, with the concrete value; `fix` is one command that helps."""

    exit_code = 1

    def __init__(self, text: str, *, fix: str | None = None) -> None:
        super().__init__(text)
        self.fix = fix
